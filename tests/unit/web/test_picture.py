"""GET /profiles/<igsid>/picture: a redirect, a problem or initials."""

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


def test_picture_is_a_redirect_to_metas_link(client, graph) -> None:
    """The link is unchanged; the second request is a hit."""
    link = "https://scontent.cdninstagram.com/v/t51/a%2Fb.jpg?stp=x_y&oh=0~!$'()*+,;&oe=FFF"
    graph.outcomes[ADA] = a_profile(profile_pic=link)

    first, second = client.get(URL), client.get(URL)

    assert (first.status_code, first.data) == (302, b"")
    assert first.headers["Location"] == second.headers["Location"] == link
    assert "Content-Type" not in first.headers
    assert first.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"
    assert second.headers["Cache-Status"] == "profile-proxy; hit; ttl=3600"
    assert graph.calls == 1


def test_picture_may_be_cached_for_less_than_its_link_lives(
    client, graph, clock
) -> None:
    """For the entry's lifetime: in the link's last hour, half of the rest."""
    graph.outcomes[ADA] = a_profile(
        profile_pic=LINK, picture_expires_at=NOW + 2 * MINUTE
    )
    client.get(URL)
    clock.now += 10

    answer = client.get(URL)

    assert answer.headers["Cache-Control"] == "private, max-age=60"
    assert answer.headers["Age"] == "10"


def test_expired_picture_is_never_redirected_to(client, graph, clock) -> None:
    """Meta is asked again, and if it has no newer link, there is no picture."""
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
    client.post(f"/admin/profiles/{ADA}/refresh")  # No pause stops an operator.
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
def test_picture_link_that_is_not_http_is_no_picture(client, graph, link) -> None:
    """As if Meta had given no link."""
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
def test_picture_link_is_unchanged(client, graph, link) -> None:
    """Byte for byte, because Meta has signed it."""
    graph.outcomes[ADA] = a_profile(profile_pic=link)

    assert client.get(URL).headers["Location"] == link


@pytest.mark.parametrize("reason", Reason)
def test_picture_refusal_is_the_problem_of_the_profile(client, graph, reason) -> None:
    graph.outcomes[ADA] = a_refusal(reason=reason)

    answer, profile = client.get(URL), client.get(f"/profiles/{ADA}")

    assert answer.json == profile.json
    assert answer.status_code == profile.status_code
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_initials_replace_a_missing_picture(client, graph) -> None:
    """200, cacheable like the profile, and the SVG is sandboxed."""
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
def test_initials_replace_a_refusal(client, graph, reason) -> None:
    """Without a name, and uncacheable: consent may be given at any time."""
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
def test_initials_replace_a_failure(client, graph, failure, code) -> None:
    """They are not cached, and Cache-Status has the failure's code."""
    graph.outcomes[ADA] = failure

    problem, answer = client.get(URL), client.get(INITIALS)

    assert problem.json["code"] == code
    assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Cache-Status"].endswith(f"; detail={code}")


def test_initials_replace_a_504(client) -> None:
    answer = client.get(INITIALS, headers={"Cache-Control": "only-if-cached"})

    assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")


def test_initials_do_not_replace_a_429(graph, clock, store, background) -> None:
    """A 429 tells the caller to slow down, and when to retry."""
    app = create_app(
        Settings.from_env(
            {"PROXY_PAGE_TOKEN": "EAACANARY", "PROXY_MISSES_PER_MINUTE": "1"}
        ),
        client=store,
        graph=graph,
        submit=background.submit,
        now=clock,
        sleep=no_wait,
    )
    client = app.test_client()
    client.get("/profiles/99900/picture?fallback=initials")

    answer = client.get(INITIALS)

    assert (answer.status_code, answer.json["code"]) == (429, "too_many_misses")


def test_initials_do_not_replace_a_picture(client, graph) -> None:
    graph.outcomes[ADA] = a_profile()

    assert client.get(INITIALS).status_code == 302


@pytest.mark.parametrize(
    "query",
    ["fallback=", "fallback=none", "fallback=Initials", "fallback=initials,x"]
    + ["fallback=initials&fallback=initials"],
)
def test_unknown_fallback_is_invalid(client, graph, query) -> None:
    """Otherwise a typing mistake would show as a missing image."""
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
def test_initials_do_not_replace_a_problem_of_the_request(
    client, url, headers, code
) -> None:
    """Or of the caller, who may not learn even the initials."""
    assert client.get(url, headers=headers).json["code"] == code


@pytest.mark.parametrize("url", [URL, INITIALS])
@pytest.mark.parametrize("link", [LINK, None])
def test_head_of_a_picture_is_get_without_a_body(client, graph, url, link) -> None:
    graph.outcomes[ADA] = a_profile(profile_pic=link)
    client.get(url)

    get, head = client.get(url), client.head(url)

    assert (head.status_code, head.data) == (get.status_code, b"")
    assert {k: v for k, v in head.headers if k != "X-Request-ID"} == {
        k: v for k, v in get.headers if k != "X-Request-ID"
    }


def test_picture_follows_cache_control(client, graph, clock) -> None:
    """A forced fetch redirects to the new link."""
    graph.outcomes[ADA] = a_profile(profile_pic=LINK)
    client.get(URL)
    other = picture_url(NOW + 90 * HOUR)
    graph.outcomes[ADA] = a_profile(profile_pic=other)
    clock.now += 2

    answer = client.get(URL, headers={"Cache-Control": "no-cache"})

    assert answer.headers["Location"] == other
    assert answer.headers["Cache-Status"] == "profile-proxy; fwd=request; stored"
