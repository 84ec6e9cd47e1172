"""The Lua scripts, as they are loaded."""

from importlib import resources

import pytest

from proxy.storage import scripts

NAMES = [
    file.name.removesuffix(".lua")
    for file in resources.files(scripts).iterdir()
    if file.name.endswith(".lua")
]


@pytest.mark.parametrize("name", NAMES)
def test_script_is_loaded_without_its_comments(name: str) -> None:
    """EVAL sends the text each time."""
    script = scripts.load(name)

    assert "--" not in script
    assert "return" in script
