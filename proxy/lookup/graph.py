"""The interface of a client of Meta's Graph API."""

from __future__ import annotations

from typing import Protocol

from proxy.domain.answer import FetchResult
from proxy.domain.profile import Igsid


class Graph(Protocol):
    """A client of Meta's Graph API."""

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        """Ask Meta about a person once, in at most *within* seconds."""
        ...

    def token_digest(self) -> str:
        """Identify the Page token in use without revealing it."""
        ...
