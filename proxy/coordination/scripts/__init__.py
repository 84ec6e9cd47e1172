"""The Lua scripts that Redis runs for the gate and the allowance, one file each."""

from functools import partial

from proxy.storage import lua

load_script = partial(lua.load_script, __name__)
"""Returns the scripts of these names, joined: ``gate`` is a prelude of some."""
