"""The Lua scripts that Redis runs for `EntryStore`, one file each."""

from importlib import resources


def load(name: str) -> str:
    """The script in ``name.lua``, without comments because EVAL sends it each time."""
    text = (resources.files(__name__) / f"{name}.lua").read_text("ascii")
    return "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith("--")
    )
