"""Settings from environments of a test, and the mistakes in them."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

import pytest

from proxy.config.settings import Settings, SettingsError

TOKEN = "EAATESTTOKEN"
ENOUGH = {"PROXY_PAGE_TOKEN": TOKEN}


def settings(**env: str) -> Settings:
    """The settings of an environment with a token and *env*.

    The names in *env* are without ``PROXY_``.
    """
    return Settings.from_env(ENOUGH | prefixed(env))


def prefixed(env: Mapping[str, str]) -> dict[str, str]:
    return {f"PROXY_{name}": value for name, value in env.items()}


def error(env: Mapping[str, str]) -> SettingsError:
    with pytest.raises(SettingsError) as raised:
        Settings.from_env(env)
    return raised.value


def mistakes(**env: str) -> list[str]:
    return error(ENOUGH | prefixed(env)).mistakes


def all_that_shows(exc: SettingsError) -> str:
    """Every text in which *exc* could show a value."""
    return "".join(traceback.format_exception(exc)) + repr(exc) + repr(exc.mistakes)
