"""The settings: read from the environment by the rows, checked, and shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from proxy.config.checks import contradictions, unknown_names
from proxy.config.readers import Address, Secret, is_in_clear, secret_in_file
from proxy.config.rows import ROWS, Row, usable_cores
from proxy.config.shown import may_be_no_path, may_be_secret, shown, shown_path
from proxy.storage.store_url import StoreUrl

PREFIX = "PROXY_"
SECRET_SHOWN_AS = "***"

OF_COMMANDS = {"API_KEY"}
"""Variables that are no settings, but that commands read."""


class SettingsError(Exception):
    """The settings are invalid. *mistakes* are all of them, one sentence each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


Check = Callable[[Any], object]
"""Checks the value of a setting further, and raises SettingsError if it is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The operator's decisions. Durations are in seconds."""

    page_token: Secret | None
    app_secret: Secret | None
    pages_file: Path | None
    graph_url: str
    graph_version: str
    graph_timeout: float
    graph_concurrency: int
    store_url: StoreUrl = field(repr=False)
    key_prefix: str
    listen: Address
    workers: int
    threads: int
    drain_for: float
    api_keys_file: Path | None
    allow_anonymous: bool
    webhook_verify_token: Secret | None
    webhook_secrets: Secret | None
    webhook_prefetch: bool
    picture_link_secret: Secret | None
    misses_per_minute: int
    profile_ttl: float
    stale_grace: float
    picture_margin: float
    picture_ttl_assumed: float
    consent_ttl: float
    blocked_ttl: float
    not_found_ttl: float
    unavailable_ttl: float
    blocked_codes: frozenset[tuple[int, int | None]]
    usage_soft: int
    usage_hard: int
    token_retry: float
    near_entries: int
    outage_grace: float
    log_level: str
    access_log: bool

    @classmethod
    def from_env(
        cls, env: Mapping[str, str], checks: Mapping[str, Check] = {}
    ) -> Settings:
        """Read the settings from environment variables ``PROXY_<NAME>``.

        A secret may be in a file instead, ``PROXY_<NAME>_FILE``. An empty variable
        counts as not set. *checks*, by name, test a value by what other modules know.

        Raises:
            SettingsError: with every mistake, and no value of a secret.
        """
        given = {k: v for k, v in env.items() if k.startswith(PREFIX) and v != ""}
        names = {row.name for row in ROWS}
        names |= {f"{row.name}_FILE" for row in ROWS if row.may_be_in_file}
        names |= OF_COMMANDS
        mistakes = unknown_names(
            (name.removeprefix(PREFIX) for name in given), names, PREFIX
        )
        values: dict[str, Any] = {}
        for row in ROWS:
            try:
                value = values[row.name.lower()] = _value(row, given)
                if row.name in checks and value is not None:
                    checks[row.name](value)
            except ValueError as exc:
                mistakes.append(str(exc))
            except SettingsError as exc:
                mistakes += exc.mistakes
        mistakes += contradictions(values)
        if mistakes:
            raise SettingsError(mistakes)
        return cls(**values)

    @property
    def warnings(self) -> list[str]:
        """What is allowed, but unsafe."""
        warnings = []
        if is_in_clear(self.graph_url):
            warnings.append("PROXY_GRAPH_URL is http, so the token is sent unencrypted")
        if self.profile_ttl > self.picture_margin:
            warnings.append(
                "PROXY_PROFILE_TTL is above PROXY_PICTURE_MARGIN, so a cache of a"
                " caller that ignores Age may show a picture whose link has expired"
            )
        return warnings


class Shown(NamedTuple):
    """One setting as ``config`` shows it; a secret's value is masked."""

    name: str
    value: str
    source: str


def show(env: Mapping[str, str]) -> list[Shown]:
    """Every setting, its value as it was written, and its source."""
    rows = []
    for row in ROWS:
        name = PREFIX + row.name
        if row.may_be_in_file and (path := env.get(f"{name}_FILE")):
            where = SECRET_SHOWN_AS if may_be_no_path(path) else path
            rows.append(Shown(name, SECRET_SHOWN_AS, f"file {where}"))
        elif env.get(name):
            has_password = row.name.endswith("_URL") and re.search("[@?]", env[name])
            is_file = row.name.endswith("_FILE")
            is_no_path = is_file and may_be_no_path(env[name])
            is_masked = row.secret or has_password or is_no_path
            is_masked = is_masked or _is_not_shown(row, env[name])
            value = SECRET_SHOWN_AS if is_masked else env[name]
            rows.append(Shown(name, value, "environment"))
        else:
            default = str(usable_cores()) if row.name == "WORKERS" else row.default
            rows.append(Shown(name, default or "", "default"))
    return rows


def _is_not_shown(row: Row, text: str) -> bool:
    """Whether *text* is a mistake that may be a secret, as the mistake itself says."""
    try:
        row.read(text)
    except ValueError:
        return may_be_secret(text, may_have_password=row.has_password)
    return False


def _value(row: Row, given: Mapping[str, str]) -> Any:
    """The value of one setting, or a ValueError that names it and the rule."""
    name = PREFIX + row.name
    if row.secret:
        return _secret(row, given)
    if row.has_password and (stored := _in_file(row, given)):
        try:
            return row.read(stored.value)
        except ValueError as exc:
            where = shown_path(str(stored.file))
            raise ValueError(f"{name}_FILE{where} must hold {exc}") from None
    text = given.get(name, row.default)
    if row.name == "WORKERS" and text is None:
        return usable_cores()
    if not text:
        # Only a default can be empty, and it means that there is no such file.
        return None
    try:
        return row.read(text)
    except ValueError as exc:
        end = shown(text, may_have_password=row.has_password)
        raise ValueError(f"{name} must be {exc}{end}") from None


def _in_file(row: Row, given: Mapping[str, str]) -> Secret | None:
    """The text of a setting in the file that ``<NAME>_FILE`` names, if one does."""
    name = PREFIX + row.name
    path = given.get(f"{name}_FILE")
    if path is None:
        return None
    if name in given:
        raise ValueError(f"{name} and {name}_FILE are both set; keep one")
    try:
        return secret_in_file(path, row.read if row.secret else str.strip)
    except ValueError as exc:
        raise ValueError(f"{name}_FILE{shown_path(path)} {exc}") from None


def _secret(row: Row, given: Mapping[str, str]) -> Secret | None:
    name = PREFIX + row.name
    if secret := _in_file(row, given):
        return secret
    if name not in given:
        if row.default is None and f"{PREFIX}PAGES_FILE" not in given:
            raise ValueError(
                f"{name} or {name}_FILE must be set ({row.help}), or"
                f" {PREFIX}PAGES_FILE for several Pages"
            )
        return None
    try:
        return Secret(row.read(given[name]), None)
    except ValueError as exc:
        raise ValueError(f"{name} must be {exc}") from None
