"""Totals: the sums that the commands and the admin routes show."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from proxy.observability.metrics import Metrics
from proxy.observability.totals import Totals, totals_of


def test_totals_are_the_sums_of_a_scrape() -> None:
    """By source and by outcome; failures are lookups too."""
    metrics = Metrics()
    page = metrics.of_page("default")
    page.answers["near", "profile"] += 5
    page.answers["hit", "blocked"] += 2
    page.answers["stale", "profile"] += 1
    page.answers["fetched", "profile"] += 1
    page.answers["none", "graph_timeout"] += 1
    page.calls["profile"] += 2
    page.calls["graph_timeout"] += 1

    totals = totals_of(metrics)

    assert (totals.lookups, totals.hits, totals.calls) == (10, 8, 3)
    assert (totals.hit_ratio, totals.calls_saved) == (0.8, 7)
    assert totals.by_source() == {
        "near": 5,
        "hit": 2,
        "stale": 1,
        "fetched": 1,
        "collapsed": 0,
        "none": 1,
    }
    outcomes = totals.by_outcome()
    assert (outcomes["profile"], outcomes["blocked"]) == (7, 2)
    assert (outcomes["graph_timeout"], outcomes["not_found"]) == (1, 0)
    text = metrics.exposition(None).decode()
    assert totals == Totals.of(text_string_to_metric_families(text))


def test_hit_ratio_is_none_before_the_first_lookup() -> None:
    """Neither 0 nor 1 would be true."""
    assert totals_of(Metrics()).hit_ratio is None


def test_totals_are_of_one_page_or_of_all() -> None:
    """Lookups and calls alike."""
    metrics = Metrics()
    metrics.of_page("default").answers["near", "profile"] += 1
    metrics.of_page("shop").answers["near", "profile"] += 2
    metrics.of_page("shop").calls["profile"] += 1

    default, shop = totals_of(metrics, "default"), totals_of(metrics, "shop")

    assert (totals_of(metrics).lookups, default.lookups, shop.lookups) == (3, 1, 2)
    assert (default.calls, shop.calls) == (0, 1)
