"""Cache-Control of a request: what it is read as, and what the answer then says."""

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
def test_what_a_header_is_read_as(header, read) -> None:
    """Of what makes no sense, the strictest; of what we do not know, nothing."""
    assert request_params.read_directives(header) == read


@pytest.mark.parametrize("directive", ["no-cache", "max-age=0", "max-age=9"])
def test_who_wants_it_new_is_told_that_it_is(client, graph, clock, directive) -> None:
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


def test_what_is_answered_in_its_place_says_why(client, graph, clock) -> None:
    """200, with its true age, and the code of what went wrong."""
    graph.outcomes[ADA] = a_profile()
    client.get(URL)
    graph.outcomes[ADA] = GraphTimeout()
    clock.now += 10

    old = client.get(URL, headers={"Cache-Control": "no-cache"})

    assert (old.status_code, old.headers["Age"]) == (200, "10")
    assert old.headers["Cache-Status"] == (
        "profile-proxy; fwd=stale; detail=graph_timeout"
    )


def test_only_if_cached_is_a_504_where_nothing_is(client, graph) -> None:
    """RFC 9111 §5.2.1.7 asks for that status."""
    answer = client.get(URL, headers={"Cache-Control": "only-if-cached"})

    assert (answer.status_code, answer.json["code"]) == (504, "not_cached")
    assert answer.headers["Cache-Status"] == "profile-proxy; detail=not_cached"
    assert answer.headers["Cache-Control"] == "no-store"
    assert graph.calls == 0


def test_pragma_costs_nobody_a_call(client, graph) -> None:
    """It is deprecated (RFC 9111 §5.4); who means it sends Cache-Control too."""
    graph.outcomes[ADA] = a_profile()
    client.get(URL)

    answer = client.get(URL, headers={"Pragma": "no-cache"})

    assert answer.headers["Cache-Status"].startswith("profile-proxy; hit; ttl=")
    assert graph.calls == 1
