"""Plain counts, and how a scrape shows them; one process by itself."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from proxy.domain.answer import Answer, FetchResult, Source
from proxy.domain.failures import FAILURES, Cause, LookupFailure, Throttled
from proxy.domain.profile import FIELDS, Outcome, Reason
from proxy.observability.call_metrics import MOST_VERSIONS
from proxy.observability.metrics import (
    FAILURE_CODES,
    GilDisabled,
    Metrics,
    PageMetrics,
    name_of,
    require_gil,
)
from proxy.observability.store_reading import StoreReading
from tests.helpers.builders import HOUR, NOW, a_profile, a_refusal, an_entry
from tests.helpers.prometheus import samples, total


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def page(metrics) -> PageMetrics:
    return metrics.of_page("default")


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def scrape(metrics: Metrics, **readings: StoreReading) -> str:
    return metrics.exposition(readings or None).decode()


def a_result(outcome: Outcome | LookupFailure, version: str | None = None):
    return FetchResult(outcome, None, "0badcafe", version)


def test_fold_adds_the_growth_once(metrics, page) -> None:
    """However often counts are folded and scraped in between."""
    page.answers["near", "profile"] += 3
    first = scrape(metrics)
    metrics.fold()
    page.answers["near", "profile"] += 2
    second = scrape(metrics)

    near = {"source": "near", "outcome": "profile"}
    assert total(first, "answers_total", **near) == 3
    assert total(second, "answers_total", **near) == 5
    assert total(second, "answers_total") == 5


def test_every_series_exists_before_its_first_event(metrics) -> None:
    """A rate over a counter that appears with its first event misses that event."""
    text = scrape(metrics)

    for reason in Reason:
        assert total(text, "answers_total", source="hit", outcome=reason) == 0
        assert total(text, "graph_calls_total", result=reason) == 0
    for code in FAILURE_CODES:
        assert total(text, "answers_total", source="none", outcome=code) == 0
    for name in ("refreshes_total", "store_errors_total", "near_looks_total"):
        assert total(text, name) == 0


def test_odd_fields_of_a_call_are_counted_by_field(metrics, page) -> None:
    """Every field has a series from the start; all Pages share them."""
    before = scrape(metrics)
    odd = ("follower_count", "profile_pic")
    for named in (page, metrics.of_page("shop")):
        named.count_call(FetchResult(a_profile(), None, "0badcafe", None, odd), 0.1)
    after = scrape(metrics)

    for field in FIELDS:
        assert total(before, "graph_odd_fields_total", field=field) == 0
        counted = total(after, "graph_odd_fields_total", field=field)
        assert counted == (2 if field in odd else 0)


def test_scrape_has_no_created_series(metrics) -> None:
    """The library would add one to each counter, which doubles what is scraped."""
    assert "_created" not in scrape(metrics)


@pytest.mark.parametrize(
    ("source", "age", "outcome", "counted"),
    [
        (Source.HIT, 0.0, a_profile(), ("hit", "profile")),
        (Source.HIT, HOUR, a_profile(), ("stale", "profile")),
        (Source.HIT, 0.0, a_refusal(), ("hit", "consent_required")),
        # The clock went on between the read of the entry and the count.
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
def test_answer_is_counted_by_source_and_outcome(
    page, source, age, outcome, counted
) -> None:
    """Stale is a hit whose freshness is over; a refusal is never stale."""
    page.count_answer(Answer(an_entry(outcome), source), NOW + age)

    assert {key for key, count in page.answers.items() if count} == {counted}


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_is_counted_by_its_code(metrics, page, failure) -> None:
    """It is no answer, so its source is ``none``."""
    page.count_failure(failure())

    text = scrape(metrics)
    assert total(text, "answers_total") == 1
    assert total(text, "answers_total", source="none", outcome=failure.code) == 1


def test_threads_lose_no_count(metrics, page, hasty_threads) -> None:
    """Without a lock: CPython switches threads nowhere between the read and write."""
    start = threading.Barrier(4)

    def count() -> None:
        start.wait()
        for _ in range(100_000):
            page.answers["near", "profile"] += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        metrics.fold()

    assert total(scrape(metrics), "answers_total") == 400_000


def test_free_threaded_python_is_refused() -> None:
    """It would lose counts; the error names what to do."""
    with pytest.raises(GilDisabled, match="PYTHON_GIL=1"):
        require_gil(lambda: False)

    require_gil(lambda: True)


def test_calls_are_counted_and_timed(metrics, page) -> None:
    """By Meta's reply, and in the bucket of how long that took."""
    page.count_call(a_result(a_profile()), 0.25)
    page.count_call(a_result(Throttled()), 20.0)

    text = scrape(metrics)
    assert total(text, "graph_calls_total", result="profile") == 1
    assert total(text, "graph_calls_total", result="throttled") == 1
    assert total(text, "graph_call_seconds_bucket", le="0.2") == 0
    assert total(text, "graph_call_seconds_bucket", le="0.3") == 1
    assert total(text, "graph_call_seconds_count") == 2
    assert total(text, "graph_call_seconds_sum") == 20.25


def test_graph_version_is_1_for_the_last_one_only(metrics, page) -> None:
    """The one before is 0, also when Meta goes back to it and on again."""
    shown = []
    for version in ("v25.0", "v26.0", "v25.0", None):
        page.count_call(a_result(a_profile(), version), 0.1)
        text = scrape(metrics)
        shown.append(
            [
                total(text, "graph_version_info", version=name)
                for name in ("v25.0", "v26.0")
            ]
        )

    assert shown == [[1, None], [0, 1], [1, 0], [1, 0]]


def test_graph_versions_are_limited_in_number(metrics, page) -> None:
    """A server in Meta's place cannot create series without end."""
    for number in range(3 * MOST_VERSIONS):
        page.count_call(a_result(a_profile(), f"v{number}.0"), 0.1)

    named = [s for s in samples(scrape(metrics)) if "graph_version" in s.name]
    assert len(named) == MOST_VERSIONS
    assert sum(s.value for s in named) == 1


def test_near_cache_counts_are_folded(metrics) -> None:
    """It counts itself, in plain numbers; its size may go down again."""
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


def test_gate_and_quota_are_shown_as_the_store_has_them(metrics) -> None:
    """At the moment of the scrape."""
    closed_for = dict.fromkeys(Cause, 0.0) | {Cause.THROTTLED: 41.5}

    text = scrape(metrics, default=StoreReading(closed_for, usage_percent=28.0))

    assert total(text, "store_up") == 1
    assert total(text, "gate_closed_for_seconds", cause="throttled") == 41.5
    assert total(text, "gate_closed_for_seconds", cause="permission") == 0
    assert total(text, "graph_usage_ratio") == 0.28


def test_quota_is_left_out_while_meta_does_not_report_it(metrics) -> None:
    """Not reported is not the same as not used."""
    reading = StoreReading(dict.fromkeys(Cause, 0.0), usage_percent=None)
    text = scrape(metrics, default=reading)

    assert total(text, "graph_usage_ratio") is None
    assert total(text, "gate_closed_for_seconds") == 0


def test_gate_and_quota_are_left_out_while_the_store_is_away(metrics) -> None:
    """An open gate would be a guess."""
    text = scrape(metrics)

    assert total(text, "store_up") == 0
    assert total(text, "gate_closed_for_seconds") is None
    assert total(text, "graph_usage_ratio") is None


def test_each_page_is_counted_by_its_name(metrics, page) -> None:
    """Errors of the store and times of calls are the process's, over all Pages."""
    shop = metrics.of_page("shop")
    page.answers["near", "profile"] += 1
    shop.answers["near", "profile"] += 2
    shop.count_call(a_result(a_profile()), 0.1)
    shop.refreshes["failed"] += 4
    metrics.count_store_error("reads")

    text = scrape(metrics)

    assert total(text, "answers_total", page="default") == 1
    assert total(text, "answers_total", page="shop") == 2
    assert total(text, "graph_calls_total", page="shop") == 1
    assert total(text, "refreshes_total", page="default") == 0
    assert total(text, "refreshes_total", page="shop") == 4
    assert total(text, "store_errors_total", kind="reads") == 1
    assert total(text, "graph_call_seconds_count") == 1


def test_page_that_comes_back_keeps_its_counts(metrics) -> None:
    """Taken out of the file and put in again, or with another token."""
    metrics.of_page("shop").answers["near", "profile"] += 1

    metrics.of_page("shop").answers["near", "profile"] += 1

    assert total(scrape(metrics), "answers_total", page="shop") == 2


def test_gate_of_each_page_is_shown(metrics) -> None:
    """A Page whose quota Meta does not report has no series of it."""
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


def test_keep_folding_starts_no_thread_in_a_process_by_itself(metrics) -> None:
    """It folds when it is scraped."""
    before = threading.active_count()

    metrics.keep_folding()

    assert threading.active_count() == before


def test_every_outcome_has_a_name_and_every_name_a_series(page) -> None:
    """So that no count fails on a missing key."""
    for outcome in (a_profile(), *(a_refusal(reason=reason) for reason in Reason)):
        page.count_call(a_result(outcome), 0.1)
        assert page.calls[name_of(outcome)] == 1
