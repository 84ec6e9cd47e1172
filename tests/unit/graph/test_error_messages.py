"""Error messages: each agrees with its recording, and every refusal has one."""

from __future__ import annotations

import re

import pytest

from proxy.domain.profile import GraphError, Reason
from proxy.graph.error_messages import MESSAGES, ErrorMessage, error_message
from proxy.graph.replies import ROWS
from tests.helpers.builders import ADA, a_refusal
from tests.helpers.recorded_replies import ERRORS, RECORDED

OTHER_WORDS = ("authorization-error-bare-100-33",)
"""Recordings of an outage, in which Meta had another message for a code."""

REFUSALS = {
    name: (body["error"], RECORDED[name]["status"])
    for name, body in ERRORS.items()
    if RECORDED[name]["suggested_class"]
    in ("consent_required", "blocked", "gone", "not_found_or_permission")
    and body["error"]["type"] != "IGApiException"  # Another host's message.
    and name not in OTHER_WORDS
}


def test_every_refusal_in_the_table_has_a_message() -> None:
    """And no failure has: failures do not get Meta's messages."""
    refusals = {
        (code, row.subcode)
        for row in ROWS
        if isinstance(row.meaning, Reason)
        for code in row.codes
    }

    assert set(MESSAGES) == refusals


@pytest.mark.parametrize("name", REFUSALS)
def test_error_message_equals_the_recorded_one(name) -> None:
    """Status, type and message are compared, except for the id in the message."""
    error, status = REFUSALS[name]
    said = GraphError(error["code"], error.get("error_subcode"))

    message = error_message(a_refusal(said=said))

    recorded = re.sub(r"(?<=ID ')\w+|(?<=exist: )\w+", ADA, error["message"])
    assert message == ErrorMessage(status, recorded, error["type"])


def test_code_from_blocked_codes_gets_the_message_of_a_block() -> None:
    """With its own code, where Meta's message for it is unknown."""
    said = GraphError(10, 2018108)

    message = error_message(a_refusal(reason=Reason.BLOCKED, said=said))

    text = "(#10) This person isn't available right now."
    assert message == ErrorMessage(400, text)


def test_block_of_code_200_has_its_recorded_message() -> None:
    """An operator lists it as 200/1545041."""
    error = ERRORS["blocked-200-1545041"]["error"]
    said = GraphError(error["code"], error["error_subcode"])

    message = error_message(a_refusal(reason=Reason.BLOCKED, said=said))

    assert message == ErrorMessage(400, error["message"])
