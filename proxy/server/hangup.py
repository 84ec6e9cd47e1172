"""What SIGHUP means here: read the files again, or that the terminal is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from enum import Enum, auto

TERMINAL = "/dev/tty"
"""A process's own controlling terminal, which cannot be opened without one."""


class Hangup(Enum):
    """What to do on SIGHUP."""

    IGNORE = auto()
    READ_FILES = auto()
    STOP = auto()


class HangupRule:
    """Decides by how this process was started, so make it at the start.

    SIGHUP stays ignored under ``nohup``. It says that the terminal is gone where there
    was one and there is none now. Otherwise an operator or a supervisor has sent it.
    """

    def __init__(
        self,
        ignored: bool | None = None,
        has_terminal: Callable[[], bool] | None = None,
    ) -> None:
        if ignored is None:
            ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._has_terminal = has_terminal or can_open_terminal
        self._ignored = ignored
        self._had_terminal = self._has_terminal()

    def __call__(self) -> Hangup:
        """Return what a SIGHUP that has just come means."""
        if self._ignored:
            return Hangup.IGNORE
        if self._had_terminal and not self._has_terminal():
            return Hangup.STOP
        return Hangup.READ_FILES


def can_open_terminal() -> bool:
    """Return whether this process has a controlling terminal.

    Source: https://man7.org/linux/man-pages/man4/tty.4.html
    """
    try:
        os.close(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
