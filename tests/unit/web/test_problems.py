"""The tables of problems are complete: add a reason or a failure, and visit them."""

from __future__ import annotations

from proxy.domain.failures import LookupFailure
from proxy.domain.profile import Reason
from proxy.logs import code_of
from proxy.lookup.lookup import What
from proxy.observability import metrics
from proxy.web import problems


def test_every_failure_has_a_status_and_a_code() -> None:
    """A failure without a row would be a 500."""
    assert set(problems.FAILURES) == set(LookupFailure.__subclasses__())


def test_a_failure_is_counted_and_logged_by_the_code_that_callers_see() -> None:
    """Or an operator could not tell from either what they were told."""
    codes = {failure: code for failure, (_, code) in problems.FAILURES.items()}

    assert codes == metrics.FAILURES
    assert codes == {failure: code_of(failure()) for failure in codes}


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
        *(code for _, code in problems.FAILURES.values()),
    ]

    assert len(codes) == len(set(codes))
