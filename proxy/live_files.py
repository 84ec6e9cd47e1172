"""The files that the settings name: checked at start, read again while serving."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, cast

from proxy.config.pages_file import BadPages, PageSettings, check_hosts, read_pages
from proxy.config.readers import Secret, read_secret
from proxy.config.settings import Settings, SettingsError
from proxy.config.shown import shown_path
from proxy.graph.replies import BlockedCodes, may_mean_blocked
from proxy.lookup.pages import Named
from proxy.watched_file import READ_EVERY, BadFile, WatchedFile
from proxy.web.auth import Keys, read_keys

IN_CLEAR = "url is http, so the token is sent unencrypted"
"""The warning about a Page of the file, in the log."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class PagesOfFile(Protocol):
    """Makes the Pages of a file, and watches the files that those name."""

    def read(self, text: str) -> Named: ...

    def app_secrets(self) -> list[str]: ...

    def problems(self) -> list[str]: ...


def read_settings(env: Mapping[str, str]) -> Settings:
    """Read the settings from *env*, and check the files and codes that they name.

    Raises:
        SettingsError: with every mistake.
    """
    pages: dict[str, PageSettings] = {}

    def check_pages(path: Path) -> None:
        pages.update(_open_pages(path, read_pages).value())

    settings = Settings.from_env(
        env,
        {
            "API_KEYS_FILE": _open_keys,
            "PAGES_FILE": check_pages,
            "BLOCKED_CODES": _check_blocked_codes,
        },
    )
    mistakes = _missing(settings, pages)
    try:
        check_hosts(pages, settings.graph_url)
    except BadPages as exc:
        mistakes += [f"PROXY_PAGES_FILE: {mistake}" for mistake in exc.mistakes]
    if mistakes:
        raise SettingsError(mistakes)
    return settings


def _missing(settings: Settings, pages: Mapping[str, PageSettings]) -> list[str]:
    """A mistake if there is no Page at all, or no secret that signs webhooks."""
    mistakes = []
    if settings.page_token is None and not pages:
        mistakes.append(
            "PROXY_PAGES_FILE holds no Page, and PROXY_PAGE_TOKEN is not set"
        )
    secrets = [settings.webhook_secrets, settings.app_secret]
    secrets += [page.app_secret for page in pages.values()]
    if settings.webhook_verify_token and not any(secrets):
        mistakes.append(
            "PROXY_WEBHOOK_VERIFY_TOKEN is set, so PROXY_WEBHOOK_SECRETS,"
            " PROXY_APP_SECRET or a Page's app_secret must be: webhooks are signed"
            " with the app's secret"
        )
    return mistakes


def pages_in_clear(settings: Settings) -> list[str]:
    """The Pages of the file whose tokens would leave this machine without TLS."""
    if settings.pages_file is None:
        return []
    pages = _open_pages(settings.pages_file, read_pages).value()
    return [name for name, page in pages.items() if page.is_in_clear]


def graph_url_of(settings: Settings, page: str | None) -> str | None:
    """The Graph URL of *page*, if the file of Pages gives one."""
    if settings.pages_file is None:
        return None
    named = _open_pages(settings.pages_file, read_pages).value().get(page or "")
    return named.url if named else None


class LiveFiles:
    """The files whose content may change while the service runs, by setting.

    Each method that opens a file returns a function that returns its current value.
    """

    def __init__(self) -> None:
        self._watched: dict[str, WatchedFile[object]] = {}
        self._named: PagesOfFile | None = None
        self._started = threading.Lock()  # Acquired once, and never released.

    def keep_reading(self) -> None:
        """Read all of them from now on, whether requests come or not.

        A worker without requests would otherwise miss what a file held for a while,
        and stay on another last good content than its neighbour. Never before a fork,
        which the thread would not survive.
        """
        if self._watched and self._started.acquire(blocking=False):
            threading.Thread(target=self._read_for_ever, daemon=True).start()

    def _read_for_ever(self) -> None:
        while True:
            try:
                self.problems()
            except Exception:
                log.exception("cannot read the files again")
            time.sleep(READ_EVERY)

    def secret(
        self, setting: str, secret: Secret, read: Callable[[str], str] = read_secret
    ) -> Callable[[], str]:
        """The current value of *secret*, as *read* returns it."""
        if secret.file is None:
            return lambda: secret.value
        watched = self._watched.get(setting)
        if watched is not None:
            return cast("WatchedFile[str]", watched).value
        file = WatchedFile(secret.file, partial(_read, read), time.monotonic)
        return self._watch(setting, file)

    def keys(self, settings: Settings) -> Callable[[], Keys] | None:
        """The current API keys; None when there is no file of them."""
        if settings.api_keys_file is None:
            return None
        return self._watch("api_keys_file", _open_keys(settings.api_keys_file))

    def pages(
        self, settings: Settings, named: PagesOfFile
    ) -> Callable[[], Named] | None:
        """The current Pages of the file, as *named* makes them; None without a file."""
        if settings.pages_file is None:
            return None
        self._named = named
        return self._watch("pages_file", _open_pages(settings.pages_file, named.read))

    def app_secrets(self) -> list[str]:
        """The current app secrets of the Pages of the file."""
        if self._named is None:
            return []
        # The file may have changed since the last request for a Page.
        self._watched["pages_file"].value()
        return self._named.app_secrets()

    def problems(self) -> list[str]:
        """Read each file again, and report the invalid ones as reasons."""
        for file in list(self._watched.values()):
            file.read_again()
        bad = [f"{name}_bad" for name, file in self._watched.items() if file.problem]
        return bad + (self._named.problems() if self._named else [])

    def _watch(self, name: str, file: WatchedFile[T]) -> Callable[[], T]:
        self._watched[name] = file  # type: ignore[assignment]  # read only
        return file.value


def _read(read: Callable[[str], str], text: str) -> str:
    try:
        return read(text)
    except ValueError as exc:
        raise BadFile(f"must be {exc}") from None


def _open_pages(path: Path, read: Callable[[str], T]) -> WatchedFile[T]:
    """The file of Pages; *read* turns its text into a value."""
    try:
        return WatchedFile(path, read, time.monotonic)
    except BadPages as exc:
        mistakes = [f"PROXY_PAGES_FILE: {mistake}" for mistake in exc.mistakes]
        raise SettingsError(mistakes) from None
    except BadFile as exc:
        where = f"PROXY_PAGES_FILE{shown_path(str(path))}"
        raise SettingsError([f"{where} {exc}"]) from None


def _open_keys(path: Path) -> WatchedFile[Keys]:
    try:
        return WatchedFile(path, read_keys, time.monotonic)
    except BadFile as exc:
        where = f"PROXY_API_KEYS_FILE{shown_path(str(path))}"
        raise SettingsError([f"{where} {exc}"]) from None


def _check_blocked_codes(codes: BlockedCodes) -> None:
    wrong = sorted(
        str(code) if subcode is None else f"{code}/{subcode}"
        for code, subcode in codes
        if not may_mean_blocked(code, subcode)
    )
    if wrong:
        raise SettingsError(
            [
                f"PROXY_BLOCKED_CODES must not list {', '.join(wrong)}: a code of the"
                " token or the quota never means blocked, and a code that has another"
                " meaning here may only be listed with a subcode, as code/subcode"
            ]
        )
