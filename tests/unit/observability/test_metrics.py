"""Plain counts, and what a scrape makes of them; one process by itself."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.domain.answer import Answer, FetchResult, Source
from proxy.domain.failures import FAILURES, Cause, LookupFailure, Throttled
from proxy.domain.profile import Outcome, Reason
from proxy.observability.metrics import (
    FAILURE_CODES,
    MOST_VERSIONS,
    Metrics,
    StoreReading,
    Totals,
    name_of,
)
from tests.helpers.builders import HOUR, NOW, a_profile, a_refusal, an_entry
from tests.helpers.prometheus import samples, total


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def scrape(metrics: Metrics, **readings: StoreReading) -> str:
    return metrics.exposition(readings or None).decode()


def told(outcome: Outcome | LookupFailure, version: str | None = None) -> FetchResult:
    return FetchResult(outcome, None, "0badcafe", version)


def test_what_has_grown_is_taken_over_once(metrics) -> None:
    """However often it is folded, and asked for, in between."""
    metrics.answers["near", "profile"] += 3
    first = scrape(metrics)
    metrics.fold()
    metrics.answers["near", "profile"] += 2
    second = scrape(metrics)

    near = {"source": "near", "outcome": "profile"}
    assert total(first, "answers_total", **near) == 3
    assert total(second, "answers_total", **near) == 5
    assert total(second, "answers_total") == 5


def test_totals_are_what_a_scrape_tells(metrics) -> None:
    """By source and by outcome; failures are lookups too."""
    metrics.answers["near", "profile"] += 5
    metrics.answers["hit", "blocked"] += 2
    metrics.answers["stale", "profile"] += 1
    metrics.answers["fetched", "profile"] += 1
    metrics.answers["none", "graph_timeout"] += 1
    metrics.calls["profile"] += 2
    metrics.calls["graph_timeout"] += 1

    totals = metrics.totals()

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
    text = scrape(metrics)
    assert totals == Totals.of(text_string_to_metric_families(text))


def test_before_anybody_asks_there_is_no_hit_ratio(metrics) -> None:
    """Neither 0 nor 1 would be true."""
    assert metrics.totals().hit_ratio is None


def test_every_series_is_there_before_anything_happens(metrics) -> None:
    """A rate over a counter that appears with its first event misses that event."""
    text = scrape(metrics)

    for reason in Reason:
        assert total(text, "answers_total", source="hit", outcome=reason) == 0
        assert total(text, "graph_calls_total", result=reason) == 0
    for code in FAILURE_CODES:
        assert total(text, "answers_total", source="none", outcome=code) == 0
    for name in ("refreshes_total", "store_errors_total", "near_looks_total"):
        assert total(text, name) == 0


@pytest.mark.parametrize(
    ("source", "age", "outcome", "counted"),
    [
        (Source.HIT, 0.0, a_profile(), ("hit", "profile")),
        (Source.HIT, HOUR, a_profile(), ("stale", "profile")),
        (Source.HIT, 0.0, a_refusal(), ("hit", "consent_required")),
        # The clock went on between the look at the entry and the count.
        (Source.HIT, HOUR, a_refusal(), ("hit", "consent_required")),
        (Source.FETCHED, 0.0, a_profile(), ("fetched", "profile")),
        (Source.COLLAPSED, 0.0, a_profile(), ("collapsed", "profile")),
        (Source.COLLAPSED, HOUR, a_profile(), ("collapsed", "profile")),
        (
            Source.FETCHED,
            0.0,
            a_refusal(reason=Reason.BLOCKED),
            ("fetched", "blocked"),
        ),
    ],
)
def test_an_answer_is_counted_by_source_and_outcome(
    metrics, source, age, outcome, counted
) -> None:
    """Stale is a hit whose freshness is over; a refusal is never stale."""
    metrics.count_answer(Answer(an_entry(outcome), source), NOW + age)

    assert {key for key, count in metrics.answers.items() if count} == {counted}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_counted_by_its_code(metrics, failure) -> None:
    """It is no answer, so it comes from nowhere."""
    metrics.count_failure(failure())

    text = scrape(metrics)
    assert total(text, "answers_total") == 1
    assert total(text, "answers_total", source="none", outcome=failure.code) == 1


def test_no_count_is_lost_between_threads(metrics, hasty_threads) -> None:
    """Without a lock: nothing lies between the read and the write of a count."""
    start = threading.Barrier(4)

    def count() -> None:
        start.wait()
        for _ in range(100_000):
            metrics.answers["near", "profile"] += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        metrics.fold()

    assert total(scrape(metrics), "answers_total") == 400_000


def test_calls_are_counted_and_timed(metrics) -> None:
    """By what Meta said, and into the bucket of how long that took."""
    metrics.count_call(told(a_profile()), 0.25)
    metrics.count_call(told(Throttled()), 20.0)

    text = scrape(metrics)
    assert total(text, "graph_calls_total", result="profile") == 1
    assert total(text, "graph_calls_total", result="throttled") == 1
    assert total(text, "graph_call_seconds_bucket", le="0.2") == 0
    assert total(text, "graph_call_seconds_bucket", le="0.3") == 1
    assert total(text, "graph_call_seconds_count") == 2
    assert total(text, "graph_call_seconds_sum") == 20.25


def test_the_version_that_answered_last_is_shown(metrics) -> None:
    """The one before is 0, also when Meta goes back to it and on again."""
    shown = []
    for version in ("v25.0", "v26.0", "v25.0", None):
        metrics.count_call(told(a_profile(), version), 0.1)
        text = scrape(metrics)
        shown.append(
            [
                total(text, "graph_version_info", version=name)
                for name in ("v25.0", "v26.0")
            ]
        )

    assert shown == [[1, None], [0, 1], [1, 0], [1, 0]]


def test_only_so_many_versions_are_named(metrics) -> None:
    """Whatever answers in Meta's place cannot make up series without end."""
    for number in range(3 * MOST_VERSIONS):
        metrics.count_call(told(a_profile(), f"v{number}.0"), 0.1)

    named = [s for s in samples(scrape(metrics)) if "version" in s.labels]
    assert len(named) == MOST_VERSIONS
    assert sum(s.value for s in named) == 1


def test_the_near_cache_is_counted(metrics) -> None:
    """By itself, in plain numbers; how full it is may go down again."""
    counts = {"hits": 5, "misses": 0, "bypassed": 1, "invalidated": 2, "evicted": 3}
    near = metrics.near = SimpleNamespace(**counts, size=7, is_trusted=True)
    full = scrape(metrics)
    near.size, near.is_trusted = 0, False
    empty = scrape(metrics)

    assert total(full, "near_looks_total", result="hit") == 5
    assert total(full, "near_looks_total", result="miss") == 0
    assert total(full, "near_looks_total", result="bypassed") == 1
    assert total(full, "near_drops_total", cause="invalidated") == 2
    assert total(full, "near_drops_total", cause="evicted") == 3
    assert [total(text, "near_entries") for text in (full, empty)] == [7, 0]
    assert [total(text, "near_trusted") for text in (full, empty)] == [1, 0]


def test_the_gate_and_the_quota_are_shown(metrics) -> None:
    """As the store tells them at the moment."""
    closed_for = dict.fromkeys(Cause, 0.0) | {Cause.THROTTLED: 41.5}

    text = scrape(metrics, default=StoreReading(closed_for, usage_percent=28.0))

    assert total(text, "store_up") == 1
    assert total(text, "gate_closed_for_seconds", cause="throttled") == 41.5
    assert total(text, "gate_closed_for_seconds", cause="permission") == 0
    assert total(text, "graph_usage_ratio") == 0.28


def test_a_quota_that_meta_does_not_tell_is_not_shown(metrics) -> None:
    """Nothing told is not the same as nothing used."""
    reading = StoreReading(dict.fromkeys(Cause, 0.0), usage_percent=None)
    text = scrape(metrics, default=reading)

    assert total(text, "graph_usage_ratio") is None
    assert total(text, "gate_closed_for_seconds") == 0


def test_without_the_store_what_it_would_tell_is_not_shown(metrics) -> None:
    """An open gate would be a guess."""
    text = scrape(metrics)

    assert total(text, "store_up") == 0
    assert total(text, "gate_closed_for_seconds") is None
    assert total(text, "graph_usage_ratio") is None


def test_each_page_is_counted_by_its_name(metrics) -> None:
    """What is a process's, such as errors of the store, is counted once for all."""
    shop = metrics.of_page("shop")
    metrics.answers["near", "profile"] += 1
    shop.answers["near", "profile"] += 2
    shop.count_call(told(a_profile()), 0.1)
    shop.refreshes["failed"] += 4
    shop.count_store_error("reads")

    text = scrape(metrics)

    assert total(text, "answers_total", page="default") == 1
    assert total(text, "answers_total", page="shop") == 2
    assert total(text, "graph_calls_total", page="shop") == 1
    assert total(text, "refreshes_total", page="default") == 0
    assert total(text, "refreshes_total", page="shop") == 4
    assert total(text, "store_errors_total", kind="reads") == 1
    assert total(text, "graph_call_seconds_count") == 1
    assert (metrics.totals().lookups, metrics.totals("shop").lookups) == (3, 2)
    assert (metrics.totals("default").calls, metrics.totals("shop").calls) == (0, 1)


def test_a_page_that_comes_back_goes_on_with_its_counts(metrics) -> None:
    """Taken out of the settings and put in again, or with another token."""
    metrics.of_page("shop").answers["near", "profile"] += 1

    metrics.of_page("shop").answers["near", "profile"] += 1

    assert total(scrape(metrics), "answers_total", page="shop") == 2


def test_the_gate_of_each_page_is_shown(metrics) -> None:
    """A Page whose quota Meta does not tell has none shown."""
    readings = {
        page: StoreReading(dict.fromkeys(Cause, 0.0) | {Cause.THROTTLED: wait}, usage)
        for page, wait, usage in (("default", 0.0, None), ("shop", 9.0, 80.0))
    }

    text = scrape(metrics, **readings)

    closed = {"cause": "throttled"}
    assert total(text, "gate_closed_for_seconds", page="default", **closed) == 0
    assert total(text, "gate_closed_for_seconds", page="shop", **closed) == 9
    assert total(text, "graph_usage_ratio", page="shop") == 0.8
    assert total(text, "graph_usage_ratio", page="default") is None


def test_a_process_by_itself_needs_no_thread(metrics) -> None:
    """It folds when it is asked."""
    before = threading.active_count()

    metrics.keep_folding()

    assert threading.active_count() == before


def test_every_outcome_has_a_name(metrics) -> None:
    """And every name a series."""
    for outcome in (a_profile(), *(a_refusal(reason=reason) for reason in Reason)):
        metrics.count_call(told(outcome), 0.1)
        assert metrics.calls[name_of(outcome)] == 1
