"""Cache-Control of a request: how it is read, and how it changes the response."""

from __future__ import annotations

import pytest

from proxy.domain.answer import Directives
from proxy.domain.failures import GraphTimeout
from proxy.web import request_params
from tests.helpers.builders import ADA, a_profile

URL = f"/profiles/{ADA}"


@pytest.mark.parametrize(
    ("header", "read"),
    [
        (None, Directives()),
        ("", Directives()),
        ("no-cache", Directives(no_cache=True)),
        ("No-Cache , foo", Directives(no_cache=True)),
        ("no-cache=x", Directives(no_cache=True)),
        ("max-age=60", Directives(max_age=60.0)),
        ('MAX-AGE="60"', Directives(max_age=60.0)),
        ("max-age=60, max-age=5", Directives(max_age=5.0)),
        ("max-age=0", Directives(no_cache=True, max_age=0.0)),
        ("max-age", Directives(no_cache=True, max_age=0.0)),
        ("max-age=", Directives(no_cache=True, max_age=0.0)),
        ("max-age=-1", Directives(no_cache=True, max_age=0.0)),
        ("max-age=1.5", Directives(no_cache=True, max_age=0.0)),
        ("max-age=١", Directives(no_cache=True, max_age=0.0)),
        ("max-age=60, max-age=soon", Directives(no_cache=True, max_age=0.0)),
        ("max-age=" + "9" * 5000, Directives(max_age=float("inf"))),
        ("only-if-cached", Directives(only_if_cached=True)),
        (
            "only-if-cached,max-age=9",
            Directives(max_age=9.0, only_if_cached=True),
        ),
        ("max-stale, min-fresh=9, no-store, no-transform", Directives()),
        ('ext="no-cache, max-age=0"', Directives()),
        ('ext="no-cache', Directives()),
        (",,=,==,;", Directives()),
    ],
    ids=lambda value: str(value)[:40],
)
def test_read_directives_takes_the_strictest_meaning(header, read) -> None:
    """A malformed directive counts as the strictest; unknown ones are ignored."""
    assert request_params.read_directives(header) == read


@pytest.mark.parametrize("directive", ["no-cache", "max-age=0", "max-age=9"])
def test_directive_forces_a_fetch_that_all_callers_then_share(
    client, graph, clock, directive
) -> None:
    """And from then on everybody has it."""
    graph.outcomes[ADA] = a_profile(name="Before")
    client.get(URL)
    graph.outcomes[ADA] = a_profile(name="After")
    clock.now += 10

    new = client.get(URL, headers={"Cache-Control": directive})

    assert new.json["name"] == client.get(URL).json["name"] == "After"
    assert new.headers["Cache-Status"] == "profile-proxy; fwd=request; stored"
    assert new.headers["Age"] == "0"
    assert graph.calls == 2


def test_stale_answer_to_a_forced_fetch_names_the_failure(client, graph, clock) -> None:
    """200 with the entry's true age, and the failure's code in Cache-Status."""
    graph.outcomes[ADA] = a_profile()
    client.get(URL)
    graph.outcomes[ADA] = GraphTimeout()
    clock.now += 10

    old = client.get(URL, headers={"Cache-Control": "no-cache"})

    assert (old.status_code, old.headers["Age"]) == (200, "10")
    assert old.headers["Cache-Status"] == (
        "profile-proxy; fwd=stale; detail=graph_timeout"
    )


def test_only_if_cached_without_an_entry_is_504(client, graph) -> None:
    """RFC 9111 §5.2.1.7 requires that status."""
    answer = client.get(URL, headers={"Cache-Control": "only-if-cached"})

    assert (answer.status_code, answer.json["code"]) == (504, "not_cached")
    assert answer.headers["Cache-Status"] == "profile-proxy; detail=not_cached"
    assert answer.headers["Cache-Control"] == "no-store"
    assert graph.calls == 0


def test_pragma_is_ignored(client, graph) -> None:
    """It is deprecated (RFC 9111 §5.4); its users send Cache-Control too."""
    graph.outcomes[ADA] = a_profile()
    client.get(URL)

    answer = client.get(URL, headers={"Pragma": "no-cache"})

    assert answer.headers["Cache-Status"].startswith("profile-proxy; hit; ttl=")
    assert graph.calls == 1
