"""The tables of problems are complete: a new reason or failure needs a row."""

from __future__ import annotations

import pytest

from proxy.domain.failures import FAILURES, LookupFailure
from proxy.domain.profile import Reason
from proxy.logs import code_of
from proxy.lookup.invalidation import What
from proxy.observability.metrics import name_of
from proxy.web import problems


def test_failures_table_is_complete() -> None:
    """A failure without a row would be a 500."""
    assert set(problems.FAILURES) == set(LookupFailure.__subclasses__())


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_has_the_same_code_in_metrics_logs_and_responses(failure) -> None:
    """Otherwise an operator could not match them with what a caller received."""
    sent = problems.failure_body(failure(), igsid=None)["code"]

    assert sent == name_of(failure()) == code_of(failure()) == failure.code


def test_refusals_table_is_complete() -> None:
    """A refusal without a row would be a 500."""
    assert set(problems.REFUSALS) == set(Reason)


def test_flush_accepts_every_reason() -> None:
    """By its own name, besides all, profiles and refusals."""
    assert {what.value for what in What} == {
        "all",
        "profiles",
        "refusals",
        *(reason.value for reason in Reason),
    }


def test_codes_are_unique() -> None:
    """Codes are the contract; callers branch on nothing else."""
    codes = [
        *problems.PROBLEMS,
        *(reason.value for reason in Reason),
        *(failure.code for failure in problems.FAILURES),
    ]

    assert len(codes) == len(set(codes))
