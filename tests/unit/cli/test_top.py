"""The screen of ``top``, as an operator reads it on a terminal."""

from __future__ import annotations

import pytest

from proxy.cli.top import Reading, draw, read
from proxy.domain.failures import Cause
from proxy.lookup.pages import UnknownPage
from proxy.observability.metrics import Metrics, PageMetrics
from proxy.observability.store_reading import StoreReading


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def page(metrics) -> PageMetrics:
    return metrics.of_page("default")


def reading_of(
    metrics: Metrics, page: str | None = None, **readings: StoreReading
) -> Reading:
    return read(metrics.exposition(readings or None).decode(), page)


def lines(screen: str) -> dict[str, list[str]]:
    """The words of each line, by its name."""
    rows = (line for line in screen.splitlines() if line)
    return {row[:20].strip(): row[20:].split() for row in rows}


def test_growth_is_shown_per_second(metrics, page) -> None:
    """Of the counts between two scrapes, two seconds apart."""
    page.answers["near", "profile"] += 1000
    before = reading_of(metrics)
    page.answers["near", "profile"] += 300
    page.answers["none", "graph_timeout"] += 1
    page.calls["graph_timeout"] += 1

    shown = lines(draw(reading_of(metrics), before, 2.0))

    assert shown["lookups"] == ["1,301", "150.5/s"]
    assert shown["calls to Meta"] == ["1", "0.5/s"]
    assert shown["near"] == ["1,300", "150.0/s"]
    assert shown["graph_timeout"] == ["1", "0.5/s"]
    assert shown["hit ratio"] == ["99.9%"]
    assert "blocked" not in shown


def test_first_scrape_shows_no_growth(metrics, page) -> None:
    """Only the counts since the start."""
    page.answers["hit", "blocked"] += 2

    shown = lines(draw(reading_of(metrics), None, 0.0))

    assert (shown["lookups"], shown["blocked"]) == (["2"], ["2"])


def test_growth_is_never_negative(metrics, page) -> None:
    """An instance that was restarted counts from 0."""
    page.answers["hit", "blocked"] += 2
    before = reading_of(metrics)

    shown = lines(draw(reading_of(Metrics()), before, 1.0))

    assert shown["lookups"] == ["0", "0.0/s"]
    assert shown["hit ratio"] == ["-"]


def test_closed_gate_and_quota_are_shown(metrics) -> None:
    """The causes that stop calls, and for how much longer."""
    closed_for = dict.fromkeys(Cause, 0.0) | {Cause.TOKEN_REJECTED: 41.2}

    now = reading_of(metrics, default=StoreReading(closed_for, 28.0))
    shown = lines(draw(now, None, 0.0))

    assert " ".join(shown["gate"]) == "closed: token_rejected for 41 s"
    assert shown["quota used"] == ["28%"]
    assert shown["store"] == ["up"]


@pytest.mark.parametrize(
    ("entries", "trusted", "is_up", "copies"),
    [
        (198, 1, True, "198"),
        (198, 0, True, "198, not in use"),
        (198, 0, False, "198, in place of the store"),
        (0, 0, False, "0, not in use"),
    ],
)
def test_copies_are_shown_with_their_use(
    metrics: Metrics, entries: int, trusted: int, is_up: bool, copies: str
) -> None:
    """While the store is away they are the only source of answers."""
    gauges = {"near_entries": entries, "near_trusted": trusted, "store_up": is_up}

    shown = lines(draw(reading_of(metrics)._replace(gauges=gauges), None, 0.0))

    assert " ".join(shown["copies"]) == copies


def test_several_pages_are_shown_together_or_one_alone(metrics, page) -> None:
    """Counts are summed; a closed gate has its Page's name; the worst quota counts."""
    page.answers["near", "profile"] += 3
    metrics.of_page("shop").answers["near", "profile"] += 4
    closed = dict.fromkeys(Cause, 0.0) | {Cause.THROTTLED: 9.0}
    state = {
        "default": StoreReading(dict.fromkeys(Cause, 0.0), 28.0),
        "shop": StoreReading(closed, 80.0),
    }

    all_pages = lines(draw(reading_of(metrics, **state), None, 0.0))
    shop = lines(draw(reading_of(metrics, "shop", **state), None, 0.0))
    default = lines(draw(reading_of(metrics, "default", **state), None, 0.0))

    assert [s["lookups"] for s in (all_pages, shop, default)] == [["7"], ["4"], ["3"]]
    assert " ".join(all_pages["gate"]) == "closed: shop: throttled for 9 s"
    assert " ".join(shop["gate"]) == "closed: throttled for 9 s"
    assert default["gate"] == ["open"]
    assert (all_pages["quota used"], default["quota used"]) == (["80%"], ["28%"])


def test_page_that_the_instance_lacks_is_an_error_and_not_zeros(metrics) -> None:
    """Its name may be mistyped."""
    with pytest.raises(UnknownPage):
        reading_of(metrics, "shopp")


def test_gate_is_not_known_while_the_store_is_away(metrics) -> None:
    """The gate is kept in the store."""
    shown = lines(draw(reading_of(metrics), None, 0.0))

    assert shown["store"] == ["away"]
    assert " ".join(shown["gate"]) == "not known"
