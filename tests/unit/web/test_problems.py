"""The tables of problems are complete: add a reason or a failure, and visit them."""

from __future__ import annotations

import pytest

from proxy.domain.failures import FAILURES, LookupFailure
from proxy.domain.profile import Reason
from proxy.logs import code_of
from proxy.lookup.invalidation import What
from proxy.observability.metrics import name_of
from proxy.web import problems


def test_every_failure_has_a_status() -> None:
    """A failure without a row would be a 500."""
    assert set(problems.FAILURES) == set(LookupFailure.__subclasses__())


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_counted_and_logged_by_the_code_that_callers_see(failure) -> None:
    """Or an operator could not tell from either what they were told."""
    sent = problems.failure_body(failure(), igsid=None)["code"]

    assert sent == name_of(failure()) == code_of(failure()) == failure.code


def test_every_reason_has_a_status() -> None:
    """A refusal without a row would be a 500."""
    assert set(problems.REFUSALS) == set(Reason)


def test_every_reason_can_be_flushed() -> None:
    """By its own name, next to all, profiles and refusals."""
    assert {what.value for what in What} == {
        "all",
        "profiles",
        "refusals",
        *(reason.value for reason in Reason),
    }


def test_no_code_means_two_things() -> None:
    """Codes are the contract; callers branch on nothing else."""
    codes = [
        *problems.PROBLEMS,
        *(reason.value for reason in Reason),
        *(failure.code for failure in problems.FAILURES),
    ]

    assert len(codes) == len(set(codes))
