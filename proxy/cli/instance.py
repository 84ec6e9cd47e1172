"""A running instance, asked over HTTP by a command with ``--url``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import click
import requests
import urllib3

from proxy.cli.output import AWAY, MISUSED, CommandFailed
from proxy.config.pages_file import NAME
from proxy.config.readers import read_secret, secret_in_file
from proxy.domain.profile import DEFAULT_PAGE, Igsid
from proxy.lookup.pages import UnknownPage

KEY_VARIABLE = "PROXY_API_KEY"
"""The variable with the API key; not on the command line, where other users see it."""

CONNECT_WITHIN, ANSWER_WITHIN = 5.0, 600.0
"""Seconds. A flush of many millions of entries takes minutes."""

LONGEST_ANSWER = 64 * 1024
"""Bytes; a receipt has some 400."""

F = TypeVar("F", bound=Callable[..., Any])


class ApiKey(NamedTuple):
    """An API key, and the variable or file that it is from, for error messages."""

    value: str
    source: str

    def __repr__(self) -> str:
        return f"ApiKey(source={self.source!r})"


class Instance:
    """A running instance at *url*, asked with *key*, or without one."""

    def __init__(self, url: str, key: ApiKey | None) -> None:
        self.url = url
        self._key = key
        self._session = requests.Session()
        self._session.trust_env = False

    def erase(self, igsid: Igsid, page: str | None) -> dict[str, Any]:
        """Erase a person there, and return the receipt.

        Raises:
            CommandFailed: there is no receipt, so the person may not be erased.
            UnknownPage: no Page can have that name.
        """
        path = f"{_prefix_of(page)}/admin/profiles/{igsid}"
        receipt = self._ask("DELETE", path)
        found = receipt.get("was_there")
        if receipt.get("igsid") != igsid or not isinstance(found, dict):
            raise self._is_another_service("200 without a receipt")
        return receipt

    def flush(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Flush entries there: *order* is the body. Return the counts.

        Raises:
            CommandFailed: there are no counts, so entries may be left.
        """
        counts = self._ask("POST", "/admin/flush", order)
        if counts.keys() != {"matched", "deleted"}:
            raise self._is_another_service("200 without counts")
        return counts

    def open_gate(self, cause: str, page: str | None) -> dict[str, Any]:
        """Open a Page's gate there, and return what was closed.

        Raises:
            CommandFailed: it is not known to be open.
        """
        query = urlencode({"page": page} if page else {})
        opened = self._ask("POST", f"/admin/gates/{cause}/open?{query}")
        if opened.get("cause") != cause:
            raise self._is_another_service("200 without a cause")
        return opened

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The JSON object of the 200 of a request; never follows a redirect."""
        key = self._key
        try:
            response = self._session.request(
                method,
                self.url + path,
                json=body,
                headers={"Authorization": f"Bearer {key.value}"} if key else {},
                timeout=(CONNECT_WITHIN, ANSWER_WITHIN),
                allow_redirects=False,
                stream=True,
            )
            text = response.raw.read(LONGEST_ANSWER, decode_content=True)
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,  # The body's: read from urllib3 itself.
            OSError,
        ) as exc:
            raise CommandFailed(
                AWAY,
                f"No instance answers at {self.url}: {type(exc).__name__}.",
                "Is it running, and is this its address?",
            ) from None
        finally:
            self._session.close()
        answer = _json_object(text)
        if response.status_code == 200 and answer:
            return answer
        raise self._failure(response.status_code, answer)

    def _failure(self, status: int, problem: Mapping[str, Any]) -> CommandFailed:
        code, detail = problem.get("code"), problem.get("detail")
        if not (isinstance(code, str) and isinstance(detail, str)):
            return self._is_another_service(str(status))
        if code == "unknown_key":
            return CommandFailed(MISUSED, *self._about_key())
        exit_code = AWAY if status >= 500 or status == 429 else MISUSED
        return CommandFailed(exit_code, f"{self.url} answers {status} {code}: {detail}")

    def _about_key(self) -> tuple[str, str]:
        """What is wrong with the key, and what to do."""
        if self._key is None:
            return (
                f"The instance at {self.url} wants an API key.",
                f"Put one with the scope admin in {KEY_VARIABLE}, or in a file for"
                " --key-file.",
            )
        return (
            f"The instance at {self.url} does not know the API key in"
            f" {self._key.source}.",
            "Its PROXY_API_KEYS_FILE has no line with this key's digest.",
        )

    def _is_another_service(self, answered: str) -> CommandFailed:
        exit_code = AWAY if answered.startswith("5") else MISUSED
        return CommandFailed(
            exit_code,
            f"Something else than this service answers at {self.url}: {answered}.",
            "Check --url: it is the address of an instance, such as 127.0.0.1:8080.",
        )


def _prefix_of(page: str | None) -> str:
    """The prefix of a Page's paths; a name of dots would be another Page's path."""
    if page in (None, DEFAULT_PAGE):
        return ""
    if NAME.fullmatch(page or "") is None:
        raise UnknownPage(page)
    return f"/pages/{page}"


def _json_object(text: bytes) -> dict[str, Any]:
    """The object that *text* is; empty if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_url(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Read the value of ``--url``: ``host:port``, or a URL."""
    if text is None:
        return None
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        parts = urlsplit(url)
        is_url = (
            parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        )
    except ValueError:
        is_url = False
    if not is_url or parts.username is not None or parts.query or parts.fragment:
        raise click.BadParameter("must be host:port or http(s)://host:port, no more")
    return url


def _read_key_file(
    _: click.Context, __: click.Parameter, path: str | None
) -> ApiKey | None:
    try:
        return ApiKey(secret_in_file(path).value, path) if path else None
    except ValueError as exc:
        raise click.BadParameter(f"{exc} (the key alone, not its line)") from None


def instance_options(command: F) -> F:
    """Add ``--url`` and ``--key-file`` to a command."""
    with_key = click.option(
        "--key-file",
        "key",
        callback=_read_key_file,
        help=f"File of the API key for --url; {KEY_VARIABLE} if left out.",
    )
    with_url = click.option(
        "--url",
        callback=read_url,
        help="Act through the running instance at host:port, whose log has it.",
    )
    return with_url(with_key(command))


def key_of(given: ApiKey | None) -> ApiKey | None:
    """The API key *given*, or the one in the environment, if there is any.

    Raises:
        CommandFailed: the one in the environment is no key.
    """
    value = os.environ.get(KEY_VARIABLE)
    if given or not value:
        return given
    try:
        return ApiKey(read_secret(value), KEY_VARIABLE)
    except ValueError as exc:
        raise CommandFailed(MISUSED, f"{KEY_VARIABLE} must be {exc}") from None
