"""What a SIGHUP means, by how the process was started."""

import pytest

from proxy.server.hangup import Hangup, HangupRule


@pytest.mark.parametrize(
    ("ignored", "had_terminal", "has_terminal", "meaning"),
    [
        (True, True, False, Hangup.IGNORE),
        (True, False, False, Hangup.IGNORE),
        (False, True, True, Hangup.READ_FILES),
        (False, True, False, Hangup.STOP),
        (False, False, False, Hangup.READ_FILES),
    ],
)
def test_only_a_lost_terminal_ends_the_service(
    ignored: bool, had_terminal: bool, has_terminal: bool, meaning: Hangup
) -> None:
    terminals = iter([had_terminal, has_terminal])

    assert HangupRule(ignored, lambda: next(terminals))() is meaning
