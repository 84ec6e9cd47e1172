"""Meta's quota headers: the share used, and the wait."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.graph.usage import LARGEST_PERCENT, LONGEST_WAIT, Usage, read_usage

_BUSINESS = "x-business-use-case-usage"
_ESTIMATE = "estimated_time_to_regain_access"
FOLDER = Path(__file__).parents[2] / "fixtures" / "graph"


def recorded(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def requested_wait(header: str | None) -> float:
    """Return the wait in one header of the business use cases."""
    headers = {} if header is None else {"x-business-use-case-usage": header}
    return read_usage(headers).wait


def a_header(*minutes: object) -> str:
    """Return a header with one use case of one account for each of *minutes*."""
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


def test_wait_is_converted_from_minutes_to_seconds() -> None:
    """The recorded reply asks for 19 minutes."""
    headers = recorded("rate-limit-buc-pages-80001")["headers"]

    wait = requested_wait(headers["x-business-use-case-usage"])

    assert wait == 19 * 60


@pytest.mark.parametrize("minutes", [(3, 7, 5), (7, 3), (0, 7), (7,)])
def test_longest_wait_of_all_accounts_counts(minutes: tuple[int, ...]) -> None:
    """One call reports under two ids, those of the business and the account."""
    wait = requested_wait(a_header(*minutes))

    assert wait == 7 * 60


def test_longest_wait_of_all_use_cases_counts() -> None:
    """One account can have several: pages, messenger, instagram."""
    cases = [{"type": "pages", "estimated_time_to_regain_access": n} for n in (2, 9, 4)]

    wait = requested_wait(json.dumps({"1784": cases}))

    assert wait == 9 * 60


@pytest.mark.parametrize(
    "case",
    recorded("usage-headers-live-2026-09-21")["body"]["cases"],
    ids=lambda case: case["call"],
)
def test_live_header_of_an_idle_app_means_no_wait(case: dict[str, str]) -> None:
    """Zero means "not blocked now"."""
    assert requested_wait(case["value"]) == 0.0


@pytest.mark.parametrize(
    ("case", "percent"),
    list(
        zip(
            recorded("usage-headers-live-2026-09-21")["body"]["cases"],
            [12.0, 0.0, 1.0, 1.0],
            strict=True,
        )
    ),
    ids=lambda case: case["call"] if isinstance(case, dict) else None,
)
def test_live_header_has_its_share(case: dict[str, str], percent: float) -> None:
    """Of each kind of token, by the one header that came with it."""
    assert read_usage({case["header"]: case["value"]}).percent == percent


@pytest.mark.parametrize(
    "type_",
    ["ads_insights", "ads_management", "custom_audience", "leadgen", "catalog_batch"]
    + ["catalog_management", "whatsapp", "whatsapp_business_management"],
)
def test_use_case_of_another_product_does_not_count(type_: str) -> None:
    """An app at the end of its advertising quota may still read profiles."""
    foreign = {"type": type_, "call_count": 100, _ESTIMATE: 50}
    own = {"type": "instagram", "call_count": 7, _ESTIMATE: 2}

    alone = read_usage({_BUSINESS: json.dumps({"1": [foreign]})})
    beside = read_usage({_BUSINESS: json.dumps({"1": [foreign, own], "2": [foreign]})})

    assert alone == Usage(None, 0.0)
    assert beside == Usage(7.0, 120.0)


@pytest.mark.parametrize(
    "type_",
    ["instagram", "messenger", "pages", "new_use_case", "ads", "leadgen2", None, 7]
    + [["ads_insights"]],
    ids=str,
)
def test_use_case_that_may_be_ours_counts(type_: object) -> None:
    """An unknown one too, because Meta does not say which one a profile counts in."""
    case = {"type": type_, "call_count": 96, _ESTIMATE: 3}

    assert read_usage({_BUSINESS: json.dumps({"1": [case]})}) == Usage(96.0, 180.0)


@pytest.mark.parametrize("header", [None, "", "{}", '{"1784":[]}', '{"1784":[{}]}'])
def test_absent_or_empty_header_means_no_wait(header: str | None) -> None:
    """It appears only "once enough calls have been made"."""
    assert requested_wait(header) == 0.0


@pytest.mark.parametrize("estimate", [{}, {"estimated_time_to_regain_access": "5"}])
def test_use_case_without_an_estimate_does_not_hide_another(estimate: dict) -> None:
    """Only a blocked use case must have one."""
    case = {"type": "messenger", "estimated_time_to_regain_access": 5}

    wait = requested_wait(
        json.dumps({"1": [{"type": "pages"} | estimate], "2": [case]})
    )

    assert wait == 5 * 60


@pytest.mark.parametrize("minutes", [61, 600, 10**9, 10**300, 10**400, float("inf")])
def test_wait_is_at_most_an_hour(minutes: float) -> None:
    """Quotas are counted over a rolling hour."""
    wait = requested_wait(a_header(minutes))

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
def test_unreadable_header_means_no_wait(header: str) -> None:
    """It must not fail a reply that is otherwise good."""
    assert requested_wait(header) == 0.0


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
def test_highest_share_of_any_quota_counts(
    name: str, value: object, percent: float | None
) -> None:
    """Of both headers, spellings and all accounts; an unreadable one is not zero."""
    assert read_usage({name: json.dumps(value)}).percent == percent


def test_absent_headers_mean_an_unknown_share() -> None:
    """They come only "once enough calls have been made"."""
    assert read_usage({}) == Usage(None, 0.0)


def test_both_headers_are_read_if_both_come() -> None:
    """No live reply had both, but each is valid."""
    business = {"1": [{"call_count": 5, "estimated_time_to_regain_access": 2}]}
    headers = {
        "x-app-usage": json.dumps({"call_count": 70}),
        "x-business-use-case-usage": json.dumps(business),
    }

    assert read_usage(headers) == Usage(70.0, 120.0)


@pytest.mark.parametrize(
    ("value", "wait"), [("120", 120.0), ("999999", LONGEST_WAIT), ("soon", 0.0)]
)
def test_retry_after_in_seconds_is_a_wait(value: str, wait: float) -> None:
    """Meta documents no such header and no live reply had one; dates are not read."""
    assert read_usage({"retry-after": value}).wait == wait


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
    """And raises no error."""
    for name in ("x-business-use-case-usage", "x-app-usage"):
        percent, wait = read_usage({name: header})

        assert 0.0 <= wait <= LONGEST_WAIT
        assert percent is None or 0.0 <= percent <= LARGEST_PERCENT
