"""GET /profiles/<igsid>/picture: where the picture is, or what comes in its place."""

from __future__ import annotations

import pytest

from proxy.app import create_app
from proxy.config.settings import Settings
from proxy.domain.failures import GraphTimeout, Throttled, TokenRejected
from proxy.domain.profile import Reason
from tests.helpers.builders import (
    ADA,
    HOUR,
    MINUTE,
    NOW,
    a_profile,
    a_refusal,
    picture_url,
)
from tests.helpers.fakes import no_wait

URL = f"/profiles/{ADA}/picture"
INITIALS = f"{URL}?fallback=initials"
LINK = picture_url(NOW + 96 * HOUR)


def test_a_picture_is_a_redirect(client, graph) -> None:
    """To Meta's link as it is; the second time it is a hit."""
    link = "https://scontent.cdninstagram.com/v/t51/a%2Fb.jpg?stp=x_y&oh=0~!$'()*+,;&oe=FFF"
    graph.outcomes[ADA] = a_profile(profile_pic=link)

    first, second = client.get(URL), client.get(URL)

    assert (first.status_code, first.data) == (302, b"")
    assert first.headers["Location"] == second.headers["Location"] == link
    assert "Content-Type" not in first.headers
    assert first.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"
    assert second.headers["Cache-Status"] == "profile-proxy; hit; ttl=3600"
    assert graph.calls == 1


def test_it_may_be_kept_for_less_than_it_lives(client, graph, clock) -> None:
    """For the entry's life, read with Age: in its last hour, half of what is left."""
    graph.outcomes[ADA] = a_profile(
        profile_pic=LINK, picture_expires_at=NOW + 2 * MINUTE
    )
    client.get(URL)
    clock.now += 10

    answer = client.get(URL)

    assert answer.headers["Cache-Control"] == "private, max-age=60"
    assert answer.headers["Age"] == "10"


def test_a_dead_picture_is_never_redirected_to(client, graph, clock) -> None:
    """Meta is asked again; and where it has nothing newer, there is none."""
    graph.outcomes[ADA] = a_profile(
        profile_pic=LINK, picture_expires_at=NOW + 2 * MINUTE
    )
    client.get(URL)
    graph.outcomes[ADA] = GraphTimeout()
    clock.now += 2 * MINUTE
    failed = client.get(URL, headers={"Cache-Control": "max-age=9999"})
    graph.outcomes[ADA] = a_profile(
        profile_pic=LINK, picture_expires_at=NOW + 2 * MINUTE
    )
    gone = client.get(URL, headers={"Cache-Control": "no-cache"})

    assert failed.status_code == 504
    assert (gone.status_code, gone.json["code"]) == (404, "no_picture")


@pytest.mark.parametrize(
    "link",
    [
        None,
        "",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "ftp://cdn.example/a.jpg",
        "//cdn.example/a.jpg",
        "/a.jpg",
        "https://",
        "https:///a b",
        "https://cdn.example/a\r\nSet-Cookie: x=1",
        "https://cdn.example/ä.jpg",
        "https://cdn.example/a.jpg\n",
        " https://cdn.example/a.jpg",
    ],
)
def test_only_a_web_address_is_redirected_to(client, graph, link) -> None:
    """Anything else is no picture, as if Meta had named none."""
    graph.outcomes[ADA] = a_profile(profile_pic=link)

    answer = client.get(URL)

    assert (answer.status_code, answer.json["code"]) == (404, "no_picture")
    assert answer.json["igsid"] == ADA
    assert "Location" not in answer.headers
    assert answer.headers["Cache-Control"] == "private, max-age=3600"
    assert answer.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.1:8/a.jpg?oe=1",
        "HTTPS://CDN.Example/a?",
        "https://cdn.example:x/a[]",
        'https://./a|b\\^`{}"<>#',
    ],
)
def test_any_web_address_is(client, graph, link) -> None:
    """As it is, to the letter: Meta has signed it."""
    graph.outcomes[ADA] = a_profile(profile_pic=link)

    assert client.get(URL).headers["Location"] == link


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_the_same_problem_as_for_the_profile(
    client, graph, reason
) -> None:
    graph.outcomes[ADA] = a_refusal(reason=reason)

    answer, profile = client.get(URL), client.get(f"/profiles/{ADA}")

    assert answer.json == profile.json
    assert answer.status_code == profile.status_code
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_initials_come_in_place_of_no_picture(client, graph) -> None:
    """200, for as long as the profile is kept; nothing in it can do anything."""
    graph.outcomes[ADA] = a_profile(name="Ada <b> Lovelace", profile_pic=None)

    answer = client.get(INITIALS)

    assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")
    assert ">AL</text>" in answer.text
    assert '<title id="name">Ada &lt;b&gt; Lovelace</title>' in answer.text
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private, max-age=3600"
    assert answer.headers["Age"] == "0"
    assert "ETag" not in answer.headers


@pytest.mark.parametrize("reason", Reason)
def test_initials_come_in_place_of_a_refusal(client, graph, reason) -> None:
    """Of nobody; the caller does not keep them, for consent can be given any time."""
    graph.outcomes[ADA] = a_refusal(reason=reason)

    answer = client.get(INITIALS)

    assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")
    assert ">?</text>" in answer.text
    assert answer.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (TokenRejected(), "token_rejected"),
        (Throttled(), "throttled"),
        (GraphTimeout(), "graph_timeout"),
    ],
)
def test_initials_come_in_place_of_a_failure(client, graph, failure, code) -> None:
    """Which is not kept, and is told in Cache-Status."""
    graph.outcomes[ADA] = failure

    problem, answer = client.get(URL), client.get(INITIALS)

    assert problem.json["code"] == code
    assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Cache-Status"].endswith(f"; detail={code}")


def test_initials_are_a_504_s_too(client) -> None:
    answer = client.get(INITIALS, headers={"Cache-Control": "only-if-cached"})

    assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")


def test_initials_hide_no_spent_allowance(graph, clock, store, background) -> None:
    """A 429 says that the caller should slow down, and when to come back."""
    app = create_app(
        Settings.from_env(
            {"PROXY_PAGE_TOKEN": "EAACANARY", "PROXY_MISSES_PER_MINUTE": "1"}
        ),
        client=store,
        graph=graph,
        later=background.submit,
        now=clock,
        sleep=no_wait,
    )
    client = app.test_client()
    client.get("/profiles/99900/picture?fallback=initials")

    answer = client.get(INITIALS)

    assert (answer.status_code, answer.json["code"]) == (429, "too_many_misses")


def test_a_live_picture_comes_before_initials(client, graph) -> None:
    graph.outcomes[ADA] = a_profile()

    assert client.get(INITIALS).status_code == 302


@pytest.mark.parametrize(
    "query",
    ["fallback=", "fallback=none", "fallback=Initials", "fallback=initials,x"]
    + ["fallback=initials&fallback=initials"],
)
def test_another_fallback_is_refused(client, graph, query) -> None:
    """Rather than have a page show nothing for a typing mistake."""
    answer = client.get(f"{URL}?{query}")

    assert (answer.status_code, answer.json["code"]) == (400, "invalid_fallback")
    assert graph.calls == 0


@pytest.mark.parametrize(
    ("url", "headers", "code"),
    [
        ("/profiles/12/picture?fallback=initials", {}, "invalid_igsid"),
        (INITIALS, {"Host": "evil.example"}, "not_local"),
    ],
)
def test_initials_hide_nothing_that_is_wrong_with_the_request(
    client, url, headers, code
) -> None:
    """Or of the caller, who may not learn even that."""
    assert client.get(url, headers=headers).json["code"] == code


@pytest.mark.parametrize("url", [URL, INITIALS])
@pytest.mark.parametrize("link", [LINK, None])
def test_head_is_get_without_a_body(client, graph, url, link) -> None:
    graph.outcomes[ADA] = a_profile(profile_pic=link)
    client.get(url)

    get, head = client.get(url), client.head(url)

    assert (head.status_code, head.data) == (get.status_code, b"")
    assert {k: v for k, v in head.headers if k != "X-Request-ID"} == {
        k: v for k, v in get.headers if k != "X-Request-ID"
    }


def test_directives_are_heeded(client, graph, clock) -> None:
    """Also in place of what is not stored: the picture that is."""
    graph.outcomes[ADA] = a_profile(profile_pic=LINK)
    client.get(URL)
    other = picture_url(NOW + 90 * HOUR)
    graph.outcomes[ADA] = a_profile(profile_pic=other)
    clock.now += 1

    answer = client.get(URL, headers={"Cache-Control": "no-cache"})

    assert answer.headers["Location"] == other
    assert answer.headers["Cache-Status"] == "profile-proxy; fwd=request; stored"
