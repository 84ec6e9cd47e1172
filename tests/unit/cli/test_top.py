"""What an instance does just now, as an operator reads it on a terminal."""

from __future__ import annotations

import pytest

from proxy.cli.top import Reading, draw, read
from proxy.domain.failures import Cause
from proxy.lookup.pages import UnknownPage
from proxy.observability.metrics import Metrics, StoreReading


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def reading_of(
    metrics: Metrics, page: str | None = None, **readings: StoreReading
) -> Reading:
    return read(metrics.exposition(readings or None).decode(), page)


def lines(page: str) -> dict[str, list[str]]:
    """The words of each line, by its name."""
    rows = (line for line in page.splitlines() if line)
    return {row[:20].strip(): row[20:].split() for row in rows}


def test_growth_is_told_by_the_second(metrics) -> None:
    """Of what was counted between two looks, two seconds apart."""
    metrics.of_page("default").answers["near", "profile"] += 1000
    before = reading_of(metrics)
    metrics.of_page("default").answers["near", "profile"] += 300
    metrics.of_page("default").answers["none", "graph_timeout"] += 1
    metrics.of_page("default").calls["graph_timeout"] += 1

    told = lines(draw(reading_of(metrics), before, 2.0))

    assert told["lookups"] == ["1,301", "150.5/s"]
    assert told["calls to Meta"] == ["1", "0.5/s"]
    assert told["near"] == ["1,300", "150.0/s"]
    assert told["graph_timeout"] == ["1", "0.5/s"]
    assert told["hit ratio"] == ["99.9%"]
    assert "blocked" not in told


def test_one_look_tells_no_growth(metrics) -> None:
    """Only what was counted since the start."""
    metrics.of_page("default").answers["hit", "blocked"] += 2

    told = lines(draw(reading_of(metrics), None, 0.0))

    assert (told["lookups"], told["blocked"]) == (["2"], ["2"])


def test_nothing_grows_backwards(metrics) -> None:
    """An instance that was started anew counts from 0."""
    metrics.of_page("default").answers["hit", "blocked"] += 2
    before = reading_of(metrics)

    told = lines(draw(reading_of(Metrics()), before, 1.0))

    assert told["lookups"] == ["0", "0.0/s"]
    assert told["hit ratio"] == ["-"]


def test_a_closed_gate_and_the_quota_are_told(metrics) -> None:
    """The causes that stop calls, and for how long yet."""
    closed_for = dict.fromkeys(Cause, 0.0) | {Cause.TOKEN_REJECTED: 41.2}

    now = reading_of(metrics, default=StoreReading(closed_for, 28.0))
    told = lines(draw(now, None, 0.0))

    assert " ".join(told["gate"]) == "closed: token_rejected for 41 s"
    assert told["quota used"] == ["28%"]
    assert told["store"] == ["up"]


@pytest.mark.parametrize(
    ("entries", "trusted", "is_up", "copies"),
    [
        (198, 1, True, "198"),
        (198, 0, True, "198, not in use"),
        (198, 0, False, "198, in place of the store"),
        (0, 0, False, "0, not in use"),
    ],
)
def test_it_is_told_what_the_copies_are_used_for(
    metrics: Metrics, entries: int, trusted: int, is_up: bool, copies: str
) -> None:
    """While the store is away there is nothing else to answer from."""
    gauges = {"near_entries": entries, "near_trusted": trusted, "store_up": is_up}

    told = lines(draw(reading_of(metrics)._replace(gauges=gauges), None, 0.0))

    assert " ".join(told["copies"]) == copies


def test_several_pages_are_told_together_or_one_alone(metrics) -> None:
    """Counts are summed; a closed gate has its Page's name; the worst quota counts."""
    metrics.of_page("default").answers["near", "profile"] += 3
    metrics.of_page("shop").answers["near", "profile"] += 4
    closed = dict.fromkeys(Cause, 0.0) | {Cause.THROTTLED: 9.0}
    state = {
        "default": StoreReading(dict.fromkeys(Cause, 0.0), 28.0),
        "shop": StoreReading(closed, 80.0),
    }

    all_of_them = lines(draw(reading_of(metrics, **state), None, 0.0))
    shop = lines(draw(reading_of(metrics, "shop", **state), None, 0.0))
    default = lines(draw(reading_of(metrics, "default", **state), None, 0.0))

    assert [t["lookups"] for t in (all_of_them, shop, default)] == [["7"], ["4"], ["3"]]
    assert " ".join(all_of_them["gate"]) == "closed: shop: throttled for 9 s"
    assert " ".join(shop["gate"]) == "closed: throttled for 9 s"
    assert default["gate"] == ["open"]
    assert (all_of_them["quota used"], default["quota used"]) == (["80%"], ["28%"])


def test_a_page_that_the_instance_does_not_have_is_no_page_of_zeros(metrics) -> None:
    """A name with a slip in it."""
    with pytest.raises(UnknownPage):
        reading_of(metrics, "shopp")


def test_a_store_that_is_away_tells_nothing_of_the_gate(metrics) -> None:
    """It is there that the gate is kept."""
    told = lines(draw(reading_of(metrics), None, 0.0))

    assert told["store"] == ["away"]
    assert " ".join(told["gate"]) == "not known"
