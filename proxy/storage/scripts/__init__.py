"""The Lua scripts that Redis runs for `EntryStore`, one file each."""

from functools import partial

from proxy.storage import lua

load = partial(lua.load_script, __name__)
"""Returns the script in ``<name>.lua``."""
