"""What Meta's quota headers say: how much is used, and how long to wait."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.graph.usage import LARGEST_PERCENT, LONGEST_WAIT, Usage, read_usage

FOLDER = Path(__file__).parents[2] / "fixtures" / "graph"


def recorded(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def wait_asked_for(header: str | None) -> float:
    """The wait in one header of the business use cases."""
    told = {} if header is None else {"x-business-use-case-usage": header}
    return read_usage(told).wait


def a_header(*minutes: object) -> str:
    """One use case of one account for each of *minutes*."""
    return json.dumps(
        {
            str(1784 + n): [
                {
                    "type": "pages",
                    "call_count": 100,
                    "total_cputime": 25,
                    "total_time": 25,
                    "estimated_time_to_regain_access": wait,
                }
            ]
            for n, wait in enumerate(minutes)
        }
    )


def test_metas_minutes_are_our_seconds() -> None:
    """The recorded reply asks for 19 minutes."""
    headers = recorded("rate-limit-buc-pages-80001")["headers"]

    wait = wait_asked_for(headers["x-business-use-case-usage"])

    assert wait == 19 * 60


@pytest.mark.parametrize("minutes", [(3, 7, 5), (7, 3), (0, 7), (7,)])
def test_the_longest_wait_over_all_accounts_rules(minutes: tuple[int, ...]) -> None:
    """One call reports under two ids, the business and the account."""
    wait = wait_asked_for(a_header(*minutes))

    assert wait == 7 * 60


def test_the_longest_wait_over_all_use_cases_of_an_account_rules() -> None:
    """One account can have several: pages, messenger, instagram."""
    cases = [{"type": "pages", "estimated_time_to_regain_access": n} for n in (2, 9, 4)]

    wait = wait_asked_for(json.dumps({"1784": cases}))

    assert wait == 9 * 60


@pytest.mark.parametrize(
    "case",
    recorded("usage-headers-live-2026-09-21")["body"]["cases"],
    ids=lambda case: case["call"],
)
def test_live_headers_of_an_idle_app_ask_for_no_wait(case: dict[str, str]) -> None:
    """Zero says "not blocked now"."""
    assert wait_asked_for(case["value"]) == 0.0


@pytest.mark.parametrize("header", [None, "", "{}", '{"1784":[]}', '{"1784":[{}]}'])
def test_a_header_that_is_absent_or_empty_asks_for_no_wait(header: str | None) -> None:
    """It appears only "once enough calls have been made"."""
    assert wait_asked_for(header) == 0.0


@pytest.mark.parametrize("estimate", [{}, {"estimated_time_to_regain_access": "5"}])
def test_a_use_case_without_an_estimate_hides_no_other(estimate: dict) -> None:
    """Only those that are blocked need to have one."""
    case = {"type": "messenger", "estimated_time_to_regain_access": 5}

    wait = wait_asked_for(
        json.dumps({"1": [{"type": "pages"} | estimate], "2": [case]})
    )

    assert wait == 5 * 60


@pytest.mark.parametrize("minutes", [61, 600, 10**9, 10**300, 10**400, float("inf")])
def test_nobody_makes_us_wait_for_longer_than_an_hour(minutes: float) -> None:
    """Quotas are counted over a rolling hour."""
    wait = wait_asked_for(a_header(minutes))

    assert wait == LONGEST_WAIT == 3600.0


@pytest.mark.parametrize(
    "header",
    [
        "busy",
        "null",
        "[]",
        "7",
        '"7"',
        '{"1784":null}',
        '{"1784":7}',
        '{"1784":"soon"}',
        '{"1784":{"type":"pages"}}',
        '{"1784":[null]}',
        '{"1784":[7]}',
        '{"1784":[' + "[" * 100_000,
        a_header(7)[:-5],
        a_header("7"),
        a_header(None),
        a_header([7]),
        a_header(-7),
        a_header(float("nan")),
        "\ud800",
    ],
    ids=lambda header: header[:60].encode("ascii", "backslashreplace").decode(),
)
def test_a_header_that_makes_no_sense_asks_for_no_wait(header: str) -> None:
    """It must not fail a reply that is otherwise good."""
    assert wait_asked_for(header) == 0.0


@pytest.mark.parametrize(
    ("name", "value", "percent"),
    [
        ("x-app-usage", {"call_count": 28, "total_time": 25, "total_cputime": 1}, 28),
        ("x-app-usage", {"call_count": 3, "total_time": 25, "total_cputime": 90}, 90),
        ("x-app-usage", {"call_volume": 41, "cpu_time": 5}, 41),
        ("x-app-usage", {"call_volume": 4, "cpu_time": 50}, 50),
        ("x-business-use-case-usage", {"1": [{"call_count": 107}]}, 107),
        ("x-business-use-case-usage", {"1": [{"call_count": 0}]}, 0),
        (
            "x-business-use-case-usage",
            {"1": [{"call_count": 3}, {"total_time": 9}], "2": [{"call_count": 8}]},
            9,
        ),
        ("x-app-usage", {"call_count": 10**9}, LARGEST_PERCENT),
        ("x-app-usage", {"call_count": "28"}, None),
        ("x-app-usage", {"call_count": True}, None),
        ("x-app-usage", {"call_count": -1}, None),
        ("x-app-usage", [28], None),
        ("x-business-use-case-usage", {"1": {"call_count": 28}}, None),
    ],
)
def test_the_highest_share_of_any_quota_counts(
    name: str, value: object, percent: float | None
) -> None:
    """Both headers, both spellings, all accounts; what makes no sense is not zero."""
    assert read_usage({name: json.dumps(value)}).percent == percent


def test_nothing_said_is_not_nothing_used() -> None:
    """The headers come only "once enough calls have been made"."""
    assert read_usage({}) == Usage(None, 0.0)


def test_both_headers_together_are_both_read() -> None:
    """The two were never seen together, but each is meant."""
    business = {"1": [{"call_count": 5, "estimated_time_to_regain_access": 2}]}
    headers = {
        "x-app-usage": json.dumps({"call_count": 70}),
        "x-business-use-case-usage": json.dumps(business),
    }

    assert read_usage(headers) == Usage(70.0, 120.0)


@pytest.mark.parametrize(
    ("told", "wait"), [("120", 120.0), ("999999", LONGEST_WAIT), ("soon", 0.0)]
)
def test_a_retry_after_would_be_meant(told: str, wait: float) -> None:
    """None is documented and none was seen; a date is not read."""
    assert read_usage({"retry-after": told}).wait == wait


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
estimates = st.fixed_dictionaries({"estimated_time_to_regain_access": anything})
usages = st.dictionaries(st.text(), st.lists(estimates | anything, max_size=3))


@given(st.text() | (anything | usages).map(json.dumps))
@example(a_header(7, float("nan")))
@example(a_header(True))
def test_any_header_is_read_within_bounds(header: str) -> None:
    """And no header is a bug of ours."""
    for name in ("x-business-use-case-usage", "x-app-usage"):
        percent, wait = read_usage({name: header})

        assert 0.0 <= wait <= LONGEST_WAIT
        assert percent is None or 0.0 <= percent <= LARGEST_PERCENT
