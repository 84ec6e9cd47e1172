"""How long Meta's quota headers ask us to wait."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.graph.usage import LONGEST_WAIT, wait_asked_for

FOLDER = Path(__file__).parents[2] / "fixtures" / "graph"


def recorded(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


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
def test_any_header_asks_for_a_wait_within_the_hour(header: str) -> None:
    """And no header is a bug of ours."""
    wait = wait_asked_for(header)

    assert 0.0 <= wait <= LONGEST_WAIT
