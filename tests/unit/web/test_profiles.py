"""GET /profiles/<igsid>: status, body and headers."""

from __future__ import annotations

import pytest

from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import FIELDS, GraphError, Reason
from tests.helpers.builders import ADA, HOUR, NOW, a_profile, a_refusal

URL = f"/profiles/{ADA}"


def test_profile_has_metas_fields_and_two_timestamps(client, graph) -> None:
    """Always all of them, null where Meta gave no value."""
    graph.outcomes[ADA] = a_profile(
        name="Zoë 🌸",
        username=None,
        profile_pic="https://cdn.example/ada.jpg",
        picture_expires_at=NOW + 72 * HOUR,
    )

    answer = client.get(URL)

    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    assert list(answer.json) == ["id", *FIELDS, "fetched_at", "picture_expires_at"]
    assert (answer.json["id"], answer.json["name"]) == (ADA, "Zoë 🌸")
    assert answer.json["username"] is None
    assert answer.json["fetched_at"].endswith("Z")
    assert answer.json["picture_expires_at"].endswith("Z")


def test_second_request_is_a_hit(client, graph) -> None:
    """Cache-Status reports it, and Meta is not asked."""
    graph.outcomes[ADA] = a_profile()

    first = client.get(URL)
    second = client.get(URL)

    assert second.data == first.data
    assert first.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"
    assert second.headers["Cache-Status"] == "profile-proxy; hit; ttl=3600"
    assert graph.calls == 1


def test_age_grows_while_max_age_stays(client, graph, clock) -> None:
    """max-age is the entry's whole lifetime; callers subtract Age."""
    graph.outcomes[ADA] = a_profile()

    client.get(URL)
    clock.now += 100
    hit = client.get(URL)

    assert hit.headers["Cache-Control"] == "private, max-age=3600"
    assert hit.headers["Age"] == "100"
    assert hit.headers["Cache-Status"] == "profile-proxy; hit; ttl=3500"


@pytest.mark.parametrize(
    "url", [URL, f"{URL}?fields=name", f"/v25.0/{ADA}", f"{URL}/picture"]
)
def test_stale_answer_may_not_be_cached(client, graph, clock, url) -> None:
    """Most caches of clients ignore Age: a max-age would keep it for an hour more."""
    graph.outcomes[ADA] = a_profile()
    client.get(URL)
    clock.now += 3599.9
    fresh = client.get(url)
    clock.now += 0.1
    stale = client.get(url)
    graph.outcomes[ADA] = GraphTimeout()
    failed = client.get(url, headers={"Cache-Control": "no-cache"})

    assert fresh.headers["Cache-Control"] == "private, max-age=3600"
    assert stale.headers["Cache-Status"] == "profile-proxy; hit; ttl=0"
    assert stale.headers["Cache-Control"] == "private, max-age=0"
    assert stale.headers["Age"] == "3600"
    assert failed.headers["Cache-Status"].startswith("profile-proxy; fwd=stale")
    assert failed.headers["Cache-Control"] == "private, max-age=0"


@pytest.mark.parametrize("query", ["", "?fallback=initials"])
def test_stale_answer_without_a_picture_may_not_be_cached(
    client, graph, clock, query
) -> None:
    """Neither the initials nor the problem; nor the 304 of a stale profile."""
    graph.outcomes[ADA] = a_profile(profile_pic=None, picture_expires_at=None)
    tag = client.get(URL).headers["ETag"]
    clock.now += 3600

    answer = client.get(f"{URL}/picture{query}")
    unchanged = client.get(URL, headers={"If-None-Match": tag})

    assert answer.headers["Cache-Control"] == "private, max-age=0"
    assert unchanged.status_code == 304
    assert unchanged.headers["Cache-Control"] == "private, max-age=0"


def test_age_is_never_negative(client, graph, clock) -> None:
    """The clock of another instance may be ahead."""
    graph.outcomes[ADA] = a_profile()

    client.get(URL)
    clock.now -= 30

    assert client.get(URL).headers["Age"] == "0"


def test_stale_entry_is_served_and_refreshed_later(
    client, graph, clock, background
) -> None:
    """A negative ttl means stale (RFC 9211 §2.4); the caller does not wait for Meta."""
    graph.outcomes[ADA] = a_profile(name="Before")
    client.get(URL)
    graph.outcomes[ADA] = a_profile(name="After")
    clock.now += HOUR + 120

    stale = client.get(URL)
    asked_by_then = graph.calls
    background.run()
    fresh = client.get(URL)

    assert stale.json["name"] == "Before"
    assert stale.headers["Cache-Status"] == "profile-proxy; hit; ttl=-120"
    assert stale.headers["Age"] == "3720"
    assert asked_by_then == 1
    assert fresh.json["name"] == "After"
    assert fresh.headers["Cache-Status"] == "profile-proxy; hit; ttl=3600"
    assert graph.calls == 2


def test_fields_filter_the_response_but_not_the_entry(client, graph) -> None:
    """All fields are fetched together; the parameter filters the response."""
    graph.outcomes[ADA] = a_profile(name="Ada", username="ada")

    selected = client.get(f"{URL}?fields=username,name")
    id_too = client.get(f"{URL}?fields=id,name")
    wide = client.get(URL)

    assert list(selected.json) == [
        "id",
        "name",
        "username",
        "fetched_at",
        "picture_expires_at",
    ]
    assert list(id_too.json) == ["id", "name", "fetched_at", "picture_expires_at"]
    assert set(FIELDS) <= set(wide.json)
    assert graph.calls == 1


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("fields=name&fields=username", ["name", "username"]),
        ("fields=username,name&fields=id", ["name", "username"]),
        ("fields=name,name&fields=name", ["name"]),
        ("fields=+name,%20username%20,,", ["name", "username"]),
        ("fields=", list(FIELDS)),
        ("fields=%20,&fields=", list(FIELDS)),
    ],
)
def test_fields_are_a_list_by_comma_or_repeated(client, graph, query, fields) -> None:
    """Blanks around a name and empty names are ignored; a repeated one counts once."""
    graph.outcomes[ADA] = a_profile()

    names = list(client.get(f"{URL}?{query}").json)

    assert names == ["id", *fields, "fetched_at", "picture_expires_at"]


@pytest.mark.parametrize("name", ["fields[]", "fields%5B%5D", "fields[0]"])
def test_fields_in_brackets_are_told_the_spelling(client, graph, name) -> None:
    """As axios and PHP send a list by default; not answered as if none were sent."""
    for query in (f"{name}=name", f"fields=name&{name}=username"):
        answer = client.get(f"{URL}?{query}")

        assert (answer.status_code, answer.json["code"]) == (400, "invalid_fields")
        assert "fields=name&fields=username" in answer.json["detail"]
    assert graph.calls == 0


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("fields=nme", "no field 'nme'."),
        ("fields=name,nam&fields=bio", "no field 'nam', 'bio'."),
        ("fields=NAME", "no field 'NAME'."),
        ("fields=fetched_at", "no field 'fetched_at'."),
        (f"fields={'x' * 5000}", f"no field '{'x' * 40}'."),
        (f"fields={','.join('abcdefgh')}", "'e' and 3 more."),
    ],
    ids=["typing mistake", "two", "capitals", "ours", "long", "many"],
)
def test_unknown_fields_are_named(client, graph, query, words) -> None:
    """With the valid fields, in bounded length, and without a call to Meta."""
    answer = client.get(f"{URL}?{query}")
    detail = answer.json["detail"]

    assert (answer.status_code, answer.json["code"]) == (400, "invalid_fields")
    assert graph.calls == 0
    assert words in detail
    assert "id,name,username," in detail
    assert len(detail) < 250


@pytest.mark.parametrize(
    "igsid",
    [
        "1234",
        "1" * 26,
        "12345a",
        "-12345",
        "+12345",
        "12 345",
        "1234.5",
        "١٢٣٤٥٦",
        "１２３４５６",
        "12345%0A",
        "1e10000",
        "0x12345",
    ],
)
def test_invalid_igsid_causes_no_call_to_meta(client, graph, store, igsid) -> None:
    """Only 5 to 25 ASCII digits are valid, not other digits that look like them."""
    answer = client.get(f"/profiles/{igsid}")

    assert (answer.status_code, answer.json["code"]) == (400, "invalid_igsid")
    assert "Cache-Status" not in answer.headers
    assert graph.calls == 0
    assert store.dbsize() == 0


def test_problem_has_the_igsid_of_the_path(client, server) -> None:
    """Whatever the problem is, a caller can match it to a person."""
    server.connected = False

    problems = [
        client.get(f"{URL}?fields=bio"),
        client.get(URL, headers={"Host": "evil.example"}),
        client.get(URL),
        client.delete(f"/admin{URL}"),
    ]

    assert {answer.json["code"]: answer.json.get("igsid") for answer in problems} == {
        "invalid_fields": ADA,
        "not_local": ADA,
        "graph_unavailable": ADA,
        "store_unavailable": ADA,
    }


@pytest.mark.parametrize("path", ["/profiles/12x", "/nothing", "/profiles/1234"])
def test_problem_without_a_valid_igsid_has_none(client, path) -> None:
    """An invalid igsid is not repeated."""
    assert "igsid" not in client.get(path).json


@pytest.mark.parametrize("igsid", ["12345", "0" * 5, "9" * 25])
def test_igsid_may_have_5_to_25_digits(client, graph, igsid) -> None:
    """Both limits are included."""
    client.get(f"/profiles/{igsid}")

    assert graph.asked == [igsid]


@pytest.mark.parametrize(
    ("reason", "status", "ttl"),
    [
        (Reason.CONSENT_REQUIRED, 403, 900),
        (Reason.BLOCKED, 403, 6 * 3600),
        (Reason.NOT_FOUND, 404, 24 * 3600),
        (Reason.UNAVAILABLE, 404, 600),
    ],
)
def test_refusal_is_a_cached_problem(client, graph, reason, status, ttl) -> None:
    """With Meta's codes; the second request is a hit; the caller must not cache it."""
    said = GraphError(230, 7, "AbC")
    graph.outcomes[ADA] = a_refusal(reason=reason, said=said)

    first, second = client.get(URL), client.get(URL)

    assert first.status_code == second.status_code == status
    assert second.mimetype == "application/problem+json"
    assert second.json["code"] == reason.value
    assert second.json["status"] == status
    assert second.json["igsid"] == ADA
    assert second.json["graph"] == {"code": 230, "subcode": 7, "fbtrace_id": "AbC"}
    assert second.headers["Cache-Control"] == "private, no-cache"
    assert second.headers["Cache-Status"] == (
        f"profile-proxy; hit; ttl={ttl}; detail={reason.value}"
    )
    assert "ETag" not in second.headers
    assert graph.calls == 1


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (TokenRejected(GraphError(190, 463)), 502, "token_rejected"),
        (PermissionMissing(GraphError(10)), 502, "permission_missing"),
        (Throttled(GraphError(4), retry_after=120.0), 503, "throttled"),
        (GraphTimeout(), 504, "graph_timeout"),
        (GraphUnavailable(), 502, "graph_unavailable"),
    ],
)
def test_failure_is_an_uncached_problem(
    client, graph, store, failure, status, code
) -> None:
    """The caller learns what failed; no cache may store it."""
    graph.outcomes[ADA] = failure

    answer = client.get(URL)

    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert answer.json["type"] == f"urn:graph-profile-proxy:problem:{code}"
    assert answer.json["igsid"] == ADA
    assert answer.headers["Cache-Control"] == "no-store"
    assert "hit" not in answer.headers["Cache-Status"]
    assert not list(store.scan_iter("pp:e:*"))


def test_503_has_retry_after(client, graph) -> None:
    """In the header and in the body, in seconds, rounded up."""
    graph.outcomes[ADA] = Throttled(retry_after=119.2)

    answer = client.get(URL)

    assert answer.headers["Retry-After"] == "120"
    assert answer.json["retry_after"] == 120


def test_matching_etag_is_304(client, graph) -> None:
    """With the headers that a 200 would have."""
    graph.outcomes[ADA] = a_profile()
    tag = client.get(URL).headers["ETag"]

    same = client.get(URL, headers={"If-None-Match": tag})
    other = client.get(URL, headers={"If-None-Match": '"other"'})
    selected = client.get(f"{URL}?fields=name", headers={"If-None-Match": tag})

    assert (same.status_code, same.data) == (304, b"")
    assert same.headers["ETag"] == tag
    assert not tag.startswith("W/")
    assert same.headers["Cache-Status"].startswith("profile-proxy; hit")
    assert other.status_code == selected.status_code == 200


@pytest.mark.parametrize("name", ["If-None-Match", "If-Match"])
def test_if_none_match_star_matches_any_etag(client, graph, name) -> None:
    """If-Match, on the other hand, is ignored."""
    graph.outcomes[ADA] = a_profile()

    answer = client.get(URL, headers={name: "*"})

    assert answer.status_code == (304 if name == "If-None-Match" else 200)


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": '"other"'},
        {"If-Match": "nonsense"},
        {"If-Match": '"other"', "If-None-Match": '"other"'},
        {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
        {"Range": "bytes=0-1"},
        {"If-None-Match": "\xff"},
    ],
    ids=str,
)
def test_other_conditions_are_ignored(client, graph, headers) -> None:
    """A 412 would carry the whole profile."""
    graph.outcomes[ADA] = a_profile()

    answer = client.get(URL, headers=headers)

    assert answer.status_code == 200
    assert answer.json["id"] == ADA


@pytest.mark.parametrize("path", ["/profiles//{}", "/profiles/{}//", "/profiles/{}/"])
def test_extra_slash_is_404_without_a_redirect(client, path) -> None:
    """A redirect would go to the host that the caller's ``Host`` names."""
    answer = client.get(path.format(ADA), headers={"Host": "evil.example"})

    assert (answer.status_code, answer.json["code"]) == (404, "unknown_path")
    assert "Location" not in answer.headers


def test_head_of_a_profile_is_get_without_a_body(client, graph) -> None:
    """With the same status and headers."""
    graph.outcomes[ADA] = a_profile()
    client.get(URL)

    get, head = client.get(URL), client.head(URL)

    assert head.data == b""
    kept = {"X-Request-ID"}
    assert {k: v for k, v in head.headers if k not in kept} == {
        k: v for k, v in get.headers if k not in kept
    }


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("req-1._X", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("<script>", False),
        ("", False),
    ],
)
def test_request_id_is_echoed_if_it_is_safe(client, sent, echoed) -> None:
    """Every response has one, for finding its log line."""
    answer = client.get("/profiles/1", headers={"X-Request-ID": sent})

    assert (answer.headers["X-Request-ID"] == sent) is echoed
    assert answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", URL, 405, "method_not_allowed"),
        ("PUT", URL, 405, "method_not_allowed"),
        ("DELETE", URL, 405, "method_not_allowed"),
        ("OPTIONS", URL, 405, "method_not_allowed"),
        ("GET", "/", 404, "unknown_path"),
        ("GET", "/profiles/", 404, "unknown_path"),
        ("GET", f"{URL}/", 404, "unknown_path"),
        ("GET", f"{URL}/x", 404, "unknown_path"),
        ("GET", "/admin/flush", 405, "method_not_allowed"),
    ],
)
def test_unknown_method_or_path_is_a_problem(
    client, graph, method, path, status, code
) -> None:
    """Errors of the framework have a body with a code too."""
    answer = client.open(path, method=method)

    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert answer.mimetype == "application/problem+json"
    assert ("Allow" in answer.headers) is (status == 405)
    assert graph.calls == 0
