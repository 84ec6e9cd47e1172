"""How Meta says no: the words agree with what was recorded, and none is missing."""

from __future__ import annotations

import re

import pytest

from proxy.domain.profile import GraphError, Reason
from proxy.graph.error_messages import WORDS, Words, words_of
from proxy.graph.replies import ROWS
from tests.helpers.builders import ADA, a_refusal
from tests.helpers.recorded_replies import ERRORS, RECORDED

REFUSALS = {
    name: (body["error"], RECORDED[name]["status"])
    for name, body in ERRORS.items()
    if RECORDED[name]["suggested_class"]
    in ("consent_required", "blocked", "gone", "not_found_or_permission")
    and body["error"]["type"] != "IGApiException"  # Another host's words.
}


def test_every_refusal_of_the_table_has_its_words() -> None:
    """And no others have: failures are not worded as Meta's."""
    refusals = {
        (code, row.subcode)
        for row in ROWS
        if isinstance(row.meaning, Reason)
        for code in row.codes
    }

    assert set(WORDS) == refusals


@pytest.mark.parametrize("name", REFUSALS)
def test_the_words_are_those_that_were_recorded(name) -> None:
    """Status, type and message, but for the id in it."""
    error, status = REFUSALS[name]
    said = GraphError(error["code"], error.get("error_subcode"))

    words = words_of(a_refusal(said=said))

    recorded = re.sub(r"(?<=ID ')\w+|(?<=exist: )\w+", ADA, error["message"])
    assert words == Words(status, recorded, error["type"])


def test_a_code_that_an_operator_takes_for_a_block_has_words_too() -> None:
    """Which nobody knows, so they say no more than the code."""
    said = GraphError(10, 2018108)

    words = words_of(a_refusal(reason=Reason.BLOCKED, said=said))

    assert words == Words(400, "(#10) This person isn't available.")
