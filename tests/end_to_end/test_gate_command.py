"""``profile-proxy gate open``, on the store and through a running instance."""

from __future__ import annotations

import json

import pytest

from tests.helpers.commands import audit_lines, run
from tests.helpers.processes import ADA, BEN, crowd


@pytest.mark.parametrize("is_through", [False, True])
def test_gate_open_lets_the_next_caller_ask(stack, is_through) -> None:
    """The command, or the instance, writes the audit line."""
    stack.meta.order("throttle", code=80002, minutes=30)
    stack.service.get(f"/profiles/{ADA}")
    stack.meta.order("throttle")
    stopped = stack.service.get(f"/profiles/{BEN}")
    options = ("--url", stack.service.url) if is_through else ()

    result = run(stack, "gate", "open", "throttled", "--json", *options)

    opened = json.loads(result.stdout)
    log = stack.service.log() if is_through else result.stderr
    line = audit_lines(log)[-1]
    assert result.returncode == 0
    assert stopped.status_code == 503
    assert 1790 < opened.pop("closed_for") <= 1800
    assert opened == {"page": "default", "cause": "throttled", "failures": 1}
    assert (line["action"], line["cause"]) == ("open_gate", "throttled")
    # Not about one of these two: the note of a failure answers for a second.
    assert stack.service.get(f"/profiles/{crowd(1)}").status_code == 200


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("overloaded",), "'throttled', 'token_rejected', 'permission', 'unavailable'"),
        (("throttled", "--page", "none"), "no such Page"),
        (("throttled", "--key-file", "/dev/null"), "--key-file"),
    ],
)
def test_gate_open_names_what_is_wrong(stack, words, text) -> None:
    """It exits with 2, and opens nothing."""
    result = run(stack, "gate", "open", *words)

    assert result.returncode == 2
    assert text in result.stderr


@pytest.mark.parametrize("is_through", [False, True])
def test_gate_open_says_where_no_gate_was_closed(stack, is_through) -> None:
    """It may have looked in another store than the service's."""
    options = ("--url", stack.service.url) if is_through else ()

    result = run(stack, "gate", "open", "permission", *options)

    store = f"store {stack.settings['STORE_URL']}, key prefix pp"
    place = f"the instance at {stack.service.url}" if is_through else store
    assert result.returncode == 0
    said = f"No gate was closed for permission in {place}, Page default."
    assert said in result.stderr


@pytest.mark.parametrize("is_through", [False, True])
def test_gate_open_that_fails_leaves_an_audit_line(stack, is_through) -> None:
    """As a flush of an unknown Page does."""
    options = ("--url", stack.service.url) if is_through else ()

    result = run(stack, "gate", "open", "throttled", "--page", "none", *options)

    log = stack.service.log() if is_through else result.stderr
    line = audit_lines(log)[-1]
    assert (line["action"], line["result"]) == ("open_gate", "unknown_page")
