"""The metrics of API keys: bounded, and with 0 before the first call."""

from __future__ import annotations

import pytest

from proxy.domain.answer import FetchResult
from proxy.domain.profile import Reason
from proxy.observability.key_metrics import MOST_KEYS, OTHER_KEYS
from proxy.observability.metrics import Metrics
from proxy.observability.totals import totals_of
from tests.helpers.builders import a_profile, a_refusal
from tests.helpers.prometheus import samples, total


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def call(metrics: Metrics, key: str | None, outcome=None, **how: bool) -> None:
    result = FetchResult(outcome or a_profile(), None, "0badcafe", None)
    metrics.of_page("default").count_call(result, 0.1, client=key, **how)


def scrape(metrics: Metrics) -> str:
    return metrics.exposition(None).decode()


def test_names_of_the_file_have_series_with_0(metrics) -> None:
    """A rate over a series that begins with its first call misses that call."""
    metrics.keys.add(["inbox", "crm", "inbox"])

    text = scrape(metrics)

    for name in ("key_calls_total", "key_forced_calls_total"):
        assert [total(text, name, key=key) for key in ("inbox", "crm")] == [0, 0]
    for reason in Reason:
        assert total(text, "key_refusals_total", key="crm", reason=reason) == 0


def test_call_is_counted_for_the_key_that_led_it(metrics) -> None:
    """A refusal by its reason; background work for no key."""
    call(metrics, "crm", a_refusal(reason=Reason.UNAVAILABLE), is_forced=True)
    call(metrics, "crm")
    call(metrics, None)

    text = scrape(metrics)
    assert total(text, "key_calls_total", key="crm") == 2
    assert total(text, "key_calls_total") == 2
    assert total(text, "key_forced_calls_total", key="crm") == 1
    assert total(text, "key_refusals_total", reason="unavailable") == 1
    assert total(text, "key_refusals_total") == 1
    of_crm = totals_of(metrics, "default").keys["crm"]
    assert (of_crm.calls, of_crm.forced, of_crm.refusals["unavailable"]) == (2, 1, 1)


def test_names_beyond_the_limit_share_one_series(metrics) -> None:
    """However many keys a file has had over the years."""
    for number in range(3 * MOST_KEYS):
        call(metrics, f"key-{number}")

    counted = [s for s in samples(scrape(metrics)) if "key_calls" in s.name]
    assert len(counted) == MOST_KEYS + 1
    assert total(scrape(metrics), "key_calls_total", key=OTHER_KEYS) == 2 * MOST_KEYS


def test_names_that_a_dead_worker_has_counted_are_among_the_limit(metrics) -> None:
    """Its successor goes on in the same files."""
    metrics.keys.add(f"old-{number}" for number in range(MOST_KEYS))
    successor = Metrics()
    successor.keys.restore(metrics.collect())

    call(successor, "new")

    assert total(scrape(successor), "key_calls_total", key=OTHER_KEYS) == 1
