"""Children of the tests get default signal dispositions, whatever started the tests."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

REPORT_IGNORED = """
import signal
from tests.helpers.signals import INHERITED

print([s.name for s in INHERITED if signal.getsignal(s) is signal.SIG_IGN])
"""

START_CHILD = """
import subprocess, sys
from tests.helpers.signals import catch_ignored_signals

if sys.argv[2] == "caught":
    catch_ignored_signals()
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""


def ignored_by_a_child(how: str) -> str:
    """Return what the child of a Python that ignores SIGINT and SIGHUP ignores."""
    return subprocess.run(
        ["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh"]
        + [sys.executable, "-c", START_CHILD, REPORT_IGNORED, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_child_of_a_test_ignores_no_signal() -> None:
    """Also where this test runs in the background or under nohup."""
    child = subprocess.run(
        [sys.executable, "-c", REPORT_IGNORED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert child.stdout == "[]\n"


def test_child_does_not_inherit_a_signal_that_was_ignored_and_is_caught() -> None:
    assert ignored_by_a_child("caught") == "[]"


def test_child_inherits_a_signal_that_is_ignored() -> None:
    """That is why they are caught."""
    assert ignored_by_a_child("ignored") == "['SIGINT', 'SIGHUP']"
