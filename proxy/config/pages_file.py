"""The file of Pages: for each its token, its Graph URL and its account ids."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.config.checks import did_you_mean
from proxy.config.readers import (
    Secret,
    is_in_clear,
    read_graph_url,
    read_secret,
    secret_in_file,
    token_reader,
)
from proxy.config.shown import shown_path
from proxy.domain.profile import DEFAULT_PAGE
from proxy.watched_file import BadFile

MOST_PAGES = 100
"""Each has series of metrics and a trip to the store at each scrape."""

KEYS = ("token", "token_file", "app_secret", "app_secret_file", "url", "ids")

NAME = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)
"""The name of a Page."""

_ACCOUNT = re.compile(r"[0-9]{1,25}", re.ASCII)
_POSITION = re.compile(r"line [0-9]+, column [0-9]+")


class BadPages(BadFile):
    """A file of Pages is invalid. *mistakes* are all of them, without values."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class PageSettings:
    """One Page of the file. *url* is None when it uses PROXY_GRAPH_URL.

    *ids* are those of its Instagram account, by which webhooks name it.
    """

    token: Secret
    app_secret: Secret | None
    url: str | None
    ids: tuple[str, ...]

    @property
    def is_in_clear(self) -> bool:
        """Whether its token leaves this machine without TLS."""
        return is_in_clear(self.url or "")


def read_pages(text: str) -> dict[str, PageSettings]:
    """Read ``[pages.<name>]`` tables (TOML), and the files of secrets that they name.

    Raises:
        BadPages: with every mistake, and no value of any key.
    """
    tables, mistakes = _tables(text)
    pages = {}
    for name, table in tables.items():
        reader = _PageReader(name)
        pages[name] = reader.read(table)
        mistakes += reader.mistakes
    mistakes += _ids_of_two(pages)
    if mistakes:
        raise BadPages(mistakes)
    return {name: page for name, page in pages.items() if page}


def _tables(text: str) -> tuple[dict[str, Any], list[str]]:
    """The table of each Page by name, and the mistakes of the file as a whole.

    Raises:
        BadPages: there are no tables to read.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        # The library's message can quote a part of the text.
        position = _POSITION.search(str(exc))
        where = f": look at {position[0]}" if position else ""
        raise BadPages([f"is not TOML{where}"]) from None
    except RecursionError:
        raise BadPages(["has brackets within brackets, too deep to be read"]) from None
    mistakes = [_unknown(key, ["pages"]) for key in content if key != "pages"]
    tables = content.get("pages", {})
    if not isinstance(tables, dict):
        raise BadPages([*mistakes, "pages must be tables: [pages.NAME]"])
    if "pages" not in content:
        mistakes.append(
            "holds no Page: put in a table [pages.NAME], or [pages] if there is none"
        )
    if len(tables) > MOST_PAGES:
        mistakes.append(f"holds {len(tables)} Pages; {MOST_PAGES} at most")
    return tables, mistakes


def _unknown(key: str, keys: list[str]) -> str:
    return f"{key} is not a key{did_you_mean(key, keys)}"


def _ids_of_two(pages: Mapping[str, PageSettings | None]) -> list[str]:
    """A mistake for each account of two Pages: its webhooks must be about one."""
    owner: dict[str, str] = {}
    mistakes = []
    for name, page in pages.items():
        for account in page.ids if page else ():
            if owner.setdefault(account, name) != name:
                mistakes.append(
                    f"pages.{name}.ids: {account} is one of pages.{owner[account]} too"
                )
    return mistakes


def check_hosts(pages: Mapping[str, PageSettings], graph_url: str) -> None:
    """Check that the token of each Page is one for its host, *graph_url* by default.

    Raises:
        BadPages: with a mistake for each Page whose token is not.
    """
    mistakes = []
    for name, page in pages.items():
        try:
            token_reader(page.url or graph_url)(page.token.value)
        except ValueError as exc:
            mistakes.append(f"pages.{name}: its token must be {exc}: set url to that")
    if mistakes:
        raise BadPages(mistakes)


class _PageReader:
    """Reads the table of one Page, and collects its mistakes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.mistakes: list[str] = []

    def read(self, table: Any) -> PageSettings | None:
        """The Page, or None if there are mistakes."""
        if not NAME.fullmatch(self._name):
            self._add("", "a name is 1 to 32 of a-z 0-9 -")
        elif self._name == DEFAULT_PAGE:
            self._add("", "this is the name of PROXY_PAGE_TOKEN's; choose another")
        if not isinstance(table, dict):
            self._add("", f"must be a table: [pages.{self._name}]")
            return None
        for key in sorted(table.keys() - set(KEYS)):
            self._add("", _unknown(key, list(KEYS)))
        token = self._secret(table, "token")
        if token is None and not {"token", "token_file"} & table.keys():
            self._add("", "token or token_file must be set")
        secret = self._secret(table, "app_secret")
        url = self._text(table, "url", read_graph_url)
        ids = self._ids(table.get("ids", []))
        if self.mistakes or token is None:
            return None
        return PageSettings(token, secret, url, ids)

    def _add(self, key: str, mistake: str) -> None:
        # An invalid name is quoted, because it may hold anything.
        name = self._name if NAME.fullmatch(self._name) else repr(self._name)
        where = f"pages.{name}.{key} " if key else f"pages.{name}: "
        self.mistakes.append(where + mistake)

    def _text(
        self, table: Mapping[str, Any], key: str, read: Callable[[str], str]
    ) -> str | None:
        if key not in table:
            return None
        try:
            if not isinstance(table[key], str):
                raise ValueError("a string")
            return read(table[key])
        except ValueError as exc:
            self._add(key, f"must be {exc}")
            return None

    def _secret(self, table: Mapping[str, Any], key: str) -> Secret | None:
        """The secret under *key*, or in the file that ``<key>_file`` names."""
        file_key = f"{key}_file"
        if key in table and file_key in table:
            self._add("", f"{key} and {file_key} are both set; keep one")
            return None
        path = self._text(table, file_key, str)
        if path is None:
            value = self._text(table, key, read_secret)
            return Secret(value, None) if value is not None else None
        try:
            return secret_in_file(path)
        except ValueError as exc:
            self._add(f"{file_key}{shown_path(path)}", str(exc))
            return None

    def _ids(self, value: Any) -> tuple[str, ...]:
        is_list = isinstance(value, list)
        if is_list and all(isinstance(i, str) and _ACCOUNT.fullmatch(i) for i in value):
            return tuple(dict.fromkeys(value))
        # Numbers are refused, because an editor may have rounded them already.
        self._add("ids", 'must be a list of digits in quotes: ["17841400000000000"]')
        return ()
