"""The Lua scripts that Redis runs for this package, each in a file of its own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def load_script(*names: str) -> str:
    """Return the scripts *names*, joined: one after another can use its functions."""
    return "\n".join((files(__name__) / f"{name}.lua").read_text() for name in names)
