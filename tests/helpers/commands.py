"""``profile-proxy`` as an operator types it: its output and the lines of its log."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from tests.helpers.processes import BIN
from tests.helpers.stack import Stack

KEPT = ("PATH", "PYTHONPATH")


def run_command(
    *words: str, env: Mapping[str, str] = {}, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``profile-proxy`` with *words*, *env* and no other settings."""
    outside = {name: os.environ[name] for name in KEPT if name in os.environ}
    return subprocess.run(
        [BIN / "profile-proxy", *words],
        env=outside | dict(env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run(
    stack: Stack, *words: str, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run ``profile-proxy`` with the settings of *stack*, and with *more* of them."""
    settings = {k: v for k, v in stack.settings.items() if k != "LOG_LEVEL"} | more
    env = {f"PROXY_{name}": value for name, value in settings.items()}
    return run_command(*words, env=env, stdin=stdin)


def log_lines(stderr: str, message: str) -> list[dict[str, Any]]:
    """Return the lines of a log with *message*."""
    lines = [json.loads(x) for x in stderr.splitlines() if x.startswith("{")]
    return [line for line in lines if line["message"] == message]


def audit_lines(stderr: str) -> list[dict[str, Any]]:
    """Return the lines about operators' actions."""
    return log_lines(stderr, "operator")
