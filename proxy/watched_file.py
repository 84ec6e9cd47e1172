"""A file whose content may change while the service runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

LOOK_EVERY = 2.0
"""Seconds between two looks at a file."""

MAX_BYTES = 1024 * 1024

log = logging.getLogger(__name__)


class BadFile(Exception):
    """A file's content does not make sense; the text says where, never what."""


class WatchedFile(Generic[T]):
    """The meaning of a file, read again by content at most every two seconds.

    By content and not by time of change: a secret mounted by Kubernetes or
    Docker changes by way of links, and two writes can share a timestamp. When
    the file cannot be read, or does not make sense, the last good value stays,
    ``problem`` says why and one ERROR is logged.
    """

    def __init__(
        self, path: Path, read: Callable[[str], T], monotonic: Callable[[], float]
    ) -> None:
        """Read *path* now, by *read*, which raises BadFile for what is no good.

        *monotonic* is monotonic, in seconds.

        Raises:
            BadFile: the file is no good from the start.
        """
        self._path = path
        self._read = read
        self._monotonic = monotonic
        self._looking = threading.Lock()
        self._text = _text_of(path)
        self._value = read(self._text)
        self._looked_at = monotonic()
        self.problem: str | None = None

    def value(self) -> T:
        """The last good value, after a look at the file if one is due."""
        if self._monotonic() - self._looked_at >= LOOK_EVERY:
            self.look()
        return self._value

    def look(self) -> None:
        """Read the file again if it has changed. One thread looks, others pass by."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._looked_at = self._monotonic()
            text = _text_of(self._path)
            if text != self._text:
                self._value, self._text = self._read(text), text
                log.info("file read again", extra={"file": self._path.name})
            elif self.problem is not None:
                log.info("file is good again", extra={"file": self._path.name})
            self.problem = None
        except BadFile as exc:
            if self.problem != str(exc):
                log.error(
                    "file is no good, the last good content stays",
                    extra={"file": self._path.name, "problem": str(exc)},
                )
            self.problem = str(exc)
        finally:
            self._looking.release()


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise BadFile(f"cannot be read: {exc.strerror}") from exc
    if len(content) > MAX_BYTES:
        raise BadFile("is larger than 1 MiB")
    try:
        return content.decode("utf-8-sig")  # Some editors leave a mark.
    except UnicodeDecodeError as exc:
        raise BadFile("is not UTF-8 text") from exc
