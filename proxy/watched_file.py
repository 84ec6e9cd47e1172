"""A file whose content may change while the service runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

READ_EVERY = 2.0
"""Seconds between two reads of a file."""

MAX_BYTES = 1024 * 1024

log = logging.getLogger(__name__)


class BadFile(Exception):
    """A file's content is invalid; the text says where, and never quotes it."""


class WatchedFile(Generic[T]):
    """The value of a file, which is read again at most every two seconds.

    A change is detected by content and not by timestamp: a secret mounted by
    Kubernetes or Docker changes by way of links, and two writes can share a
    timestamp. While the file is unreadable or invalid, the last valid value stays,
    ``problem`` says why, and one ERROR is logged.
    """

    def __init__(
        self, path: Path, read: Callable[[str], T], monotonic: Callable[[], float]
    ) -> None:
        """Read *path* now. *read* raises BadFile for invalid text.

        *monotonic* is a monotonic clock, in seconds.

        Raises:
            BadFile: the file is unreadable or invalid from the start.
        """
        self._path = path
        self._read = read
        self._monotonic = monotonic
        self._reading = threading.Lock()
        self._text = read_text(path)
        self._value = read(self._text)
        self._read_at = monotonic()
        self.problem: str | None = None

    def value(self) -> T:
        """The last valid value, after reading the file again if that is due."""
        if self._monotonic() - self._read_at >= READ_EVERY:
            self.read_again()
        return self._value

    def read_again(self) -> None:
        """Read the file, and its value if it has changed.

        One thread at a time; others return at once, with the value as it is.
        """
        if not self._reading.acquire(blocking=False):
            return
        try:
            self._read_at = self._monotonic()
            text = read_text(self._path)
            if text != self._text:
                self._value, self._text = self._read(text), text
                log.info("file read again", extra={"file": self._path.name})
            elif self.problem is not None:
                log.info("file is valid again", extra={"file": self._path.name})
            self.problem = None
        except BadFile as exc:
            if self.problem != str(exc):
                log.error(
                    "file is invalid, the last valid content stays",
                    extra={"file": self._path.name, "problem": str(exc)},
                )
            self.problem = str(exc)
        finally:
            self._reading.release()


def read_text(path: Path) -> str:
    """The text of the file at *path*, which may have 1 MiB.

    Raises:
        BadFile: it is unreadable, too long or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise BadFile(f"cannot be read: {exc.strerror}") from exc
    if len(content) > MAX_BYTES:
        raise BadFile("is larger than 1 MiB")
    try:
        return content.decode("utf-8-sig")  # Some editors write a byte order mark.
    except UnicodeDecodeError as exc:
        raise BadFile("is not UTF-8 text") from exc
