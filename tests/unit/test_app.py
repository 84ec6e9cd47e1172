"""What only the whole can know: settings that do not fit what others know."""

from __future__ import annotations

import pytest

from proxy.app import read_settings
from proxy.settings import Settings, SettingsError


def settings(**env: str) -> Settings:
    """As the service reads them, with a token and *env*, without ``PROXY_``."""
    given = {f"PROXY_{name}": value for name, value in env.items()}
    return read_settings({"PROXY_PAGE_TOKEN": "EAATESTTOKEN"} | given)


def mistakes(**env: str) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        settings(**env)
    return raised.value.mistakes


@pytest.mark.parametrize("codes", ["551", "9010", "100/33,803", "12345", ","])
def test_codes_that_may_be_about_a_person_may_mean_blocked(codes: str) -> None:
    """An operator who has seen one can say so."""
    assert settings(BLOCKED_CODES=codes).blocked_codes is not None


def test_codes_that_are_not_about_a_person_may_not_mean_blocked() -> None:
    """They are told with all other mistakes, and the good ones are not."""
    told = mistakes(BLOCKED_CODES="551,190/463,4,100,100/33", THREADS="1")

    assert told == [
        "PROXY_THREADS must be a whole number between 96 and 4096",
        "PROXY_BLOCKED_CODES must not list 4, 100, 190: known to be about the token,"
        " the app, the quota or consent",
    ]
