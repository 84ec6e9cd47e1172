"""The file of Pages: for each its token, where Meta is and which accounts it has."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy.config.settings import Address, Secret, read_graph_url, read_secret
from proxy.domain.profile import DEFAULT_PAGE
from proxy.watched_file import BadFile

MOST_PAGES = 100
"""Each has series of metrics and a trip to the store at each scrape."""

KEYS = ("token", "token_file", "app_secret", "app_secret_file", "url", "ids")

_NAME = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)
_ACCOUNT = re.compile(r"[0-9]{1,25}", re.ASCII)
_PLACE = re.compile(r"line [0-9]+, column [0-9]+")


class BadPages(BadFile):
    """A file of Pages that is no good. *mistakes* are all of them, without values."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class PageSettings:
    """One Page as the file has it; *url* is None where it is PROXY_GRAPH_URL.

    *ids* are those of its Instagram account, under which webhooks tell of it.
    """

    token: Secret
    app_secret: Secret | None
    url: str | None
    ids: tuple[str, ...]

    @property
    def is_in_clear(self) -> bool:
        """Whether its token leaves this machine without TLS."""
        parts = urlsplit(self.url or "")
        return (
            parts.scheme == "http" and not Address(parts.hostname or "", 0).is_loopback
        )


def read_pages(text: str) -> dict[str, PageSettings]:
    """Read ``[pages.<name>]`` tables (TOML), and the secrets in files that they name.

    Raises:
        BadPages: with every mistake there is, and no value of any key.
    """
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        # Its own words can quote a part of the text.
        place = _PLACE.search(str(exc))
        where = f": look at {place[0]}" if place else ""
        raise BadPages([f"is not TOML{where}"]) from None
    except RecursionError:
        raise BadPages(["has brackets within brackets, too deep to be read"]) from None
    mistakes = [
        f"{key} is not a key{_near(key, ['pages'])}" for key in told if key != "pages"
    ]
    tables = told.get("pages", {})
    if not isinstance(tables, dict):
        raise BadPages([*mistakes, "pages must be tables: [pages.NAME]"])
    if "pages" not in told:
        mistakes.append(
            "holds no Page: put in a table [pages.NAME], or [pages] if there is none"
        )
    if len(tables) > MOST_PAGES:
        mistakes.append(f"holds {len(tables)} Pages; {MOST_PAGES} at most")
    pages = {}
    for name, table in tables.items():
        reading = _Reading(name)
        pages[name] = reading.read(table)
        mistakes += reading.mistakes
    mistakes += _ids_of_two(pages)
    if mistakes:
        raise BadPages(mistakes)
    return {name: page for name, page in pages.items() if page}


def _near(key: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _ids_of_two(pages: Mapping[str, PageSettings | None]) -> list[str]:
    """A webhook about an account must be of one Page."""
    owner: dict[str, str] = {}
    mistakes = []
    for name, page in pages.items():
        for account in page.ids if page else ():
            if owner.setdefault(account, name) != name:
                mistakes.append(
                    f"pages.{name}.ids: {account} is one of pages.{owner[account]} too"
                )
    return mistakes


class _Reading:
    """The reading of one table, and what is wrong with it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.mistakes: list[str] = []

    def read(self, table: Any) -> PageSettings | None:
        """The Page, or None if there are mistakes."""
        if not _NAME.fullmatch(self._name):
            self._wrong("", "a name is 1 to 32 of a-z 0-9 -")
        elif self._name == DEFAULT_PAGE:
            self._wrong("", "this is the name of PROXY_PAGE_TOKEN's; choose another")
        if not isinstance(table, dict):
            self._wrong("", f"must be a table: [pages.{self._name}]")
            return None
        for key in sorted(table.keys() - set(KEYS)):
            self._wrong("", f"{key} is not a key{_near(key, list(KEYS))}")
        token = self._secret(table, "token")
        if token is None and not {"token", "token_file"} & table.keys():
            self._wrong("", "token or token_file must be set")
        secret = self._secret(table, "app_secret")
        url = self._text(table, "url", read_graph_url)
        ids = self._ids(table.get("ids", []))
        if self.mistakes or token is None:
            return None
        return PageSettings(token, secret, url, ids)

    def _wrong(self, key: str, what: str) -> None:
        # A name that is none is quoted, for it may hold anything.
        name = self._name if _NAME.fullmatch(self._name) else repr(self._name)
        place = f"pages.{name}.{key} " if key else f"pages.{name}: "
        self.mistakes.append(place + what)

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
            self._wrong(key, f"must be {exc}")
            return None

    def _secret(self, table: Mapping[str, Any], key: str) -> Secret | None:
        """The secret under *key*, or in the file that ``<key>_file`` names."""
        named = f"{key}_file"
        if key in table and named in table:
            self._wrong("", f"{key} and {named} are both set; keep one")
            return None
        path = self._text(table, named, str)
        if path is None:
            value = self._text(table, key, read_secret)
            return Secret(value, None) if value is not None else None
        try:
            return Secret(read_secret(Path(path).read_text()), Path(path))
        except OSError as exc:
            self._wrong(named, f"cannot be read: {exc.strerror}")
        except UnicodeDecodeError:
            self._wrong(named, "is not text")
        except ValueError as exc:
            self._wrong(named, f"must hold {exc}")
        return None

    def _ids(self, told: Any) -> tuple[str, ...]:
        is_list = isinstance(told, list)
        if is_list and all(isinstance(i, str) and _ACCOUNT.fullmatch(i) for i in told):
            return tuple(dict.fromkeys(told))
        # Numbers are not taken: whoever writes them may have lost digits already.
        self._wrong("ids", 'must be a list of digits in quotes: ["17841400000000000"]')
        return ()
