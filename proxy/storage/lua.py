"""Load Lua scripts, each from a file of its own in a package."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def load_script(package: str, *names: str) -> str:
    """Join the scripts *names* of *package*; later ones can use those before them.

    Without comments, because EVAL sends the text each time.
    """
    folder = resources.files(package)
    texts = ((folder / f"{name}.lua").read_text("ascii") for name in names)
    lines = "\n".join(texts).splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("--"))
