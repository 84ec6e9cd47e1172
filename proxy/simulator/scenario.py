"""The state that tests change while the simulator runs."""

import hmac
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.simulator import people
from proxy.simulator.reading import BadRequest
from proxy.simulator.scripts import Script

MAX_SCRIPTS = 10_000


@dataclass(frozen=True, slots=True)
class TokenDeath:
    """When the token died, and why; ``subcode`` None leaves the cause open."""

    subcode: int | None
    died_at: float


@dataclass(frozen=True, slots=True)
class Throttle:
    """A limit that has been reached, by its code, and the wait that Meta asks for."""

    code: int
    minutes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The values of the usage header, in place of the real usage.

    ``type`` is the use case; None means that of the call.
    """

    percent: int
    minutes: int
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The current rules for every call to Meta for one Page.

    ``number`` is the Page's index: the ids of its people contain it.
    """

    token: str = field(repr=False)
    app_secret: str | None = field(default=None, repr=False)
    death: TokenDeath | None = None
    throttle: Throttle | None = None
    usage: Usage | None = None
    missing_fields: frozenset[str] = frozenset()
    number: int = 0

    @property
    def has_instagram_login(self) -> bool:
        """Whether answers have the form of graph.instagram.com."""
        return self.token.startswith("IGA")


FIRST_PAGE = "default"
"""The Page of a request that names none."""


class Scenario:
    """The rules and the scripts; thread-safe, starts with and resets to *rules*.

    *more* are the rules of other Pages, by name.
    """

    def __init__(self, rules: Rules, more: Mapping[str, Rules] = {}) -> None:
        self._first_rules = {FIRST_PAGE: rules, **more}
        self._lock = threading.Lock()
        self._scripts: dict[str, Script] = {}
        self._released = threading.Event()
        self._rules = dict(self._first_rules)

    @property
    def rules(self) -> Rules:
        """The rules of the first Page."""
        return self._rules[FIRST_PAGE]

    @property
    def pages(self) -> list[str]:
        """The names of all Pages."""
        return list(self._rules)

    def rules_of(self, page: str) -> Rules:
        """Return the current rules of a Page."""
        return self._rules[page]

    def page_of_token(self, token: str | None) -> str | None:
        """Return the name of the Page with that token, or None."""
        given = (token or "").encode()
        for page, rules in self._rules.items():
            if hmac.compare_digest(given, rules.token.encode()):
                return page
        return None

    def page_of_person(self, igsid: str) -> str | None:
        """Return the Page with people of ids like this one, or None."""
        for page, rules in self._rules.items():
            if igsid.startswith(people.prefix(rules.number)):
                return page
        return None

    def change(
        self,
        *,
        page: str = FIRST_PAGE,
        token: str | None = None,
        missing_fields: frozenset[str] | None = None,
    ) -> None:
        """Change the token that is accepted, or the fields that are missing."""
        if token is not None:
            self._replace(page, token=token)
        if missing_fields is not None:
            self._replace(page, missing_fields=missing_fields)

    def set_token_death(self, death: TokenDeath | None, page: str = FIRST_PAGE) -> None:
        """Invalidate the token, or with None revive it."""
        self._replace(page, death=death)

    def throttle(self, throttle: Throttle | None, page: str = FIRST_PAGE) -> None:
        """Refuse every profile call with a limit's error, or with None stop that."""
        self._replace(page, throttle=throttle)

    def set_usage(self, usage: Usage | None, page: str = FIRST_PAGE) -> None:
        """Fix the usage header, or with None let it grow with the calls again."""
        self._replace(page, usage=usage)

    def _replace(self, page: str, **changes: Any) -> None:
        with self._lock:
            self._rules[page] = replace(self._rules[page], **changes)

    def set_script(self, igsid: str, script: Script) -> None:
        """Set the script of *igsid*, in place of any other.

        Raises:
            BadRequest: too many people have one already.
        """
        with self._lock:
            if igsid not in self._scripts and len(self._scripts) >= MAX_SCRIPTS:
                raise BadRequest(f"at most {MAX_SCRIPTS} people can have a script")
            self._scripts[igsid] = script

    def remove_script(self, igsid: str) -> None:
        """Remove the script of *igsid*."""
        with self._lock:
            self._scripts.pop(igsid, None)

    def take_script(self, igsid: str) -> Script | None:
        """Return the script for one call about *igsid*, and count one use of it."""
        with self._lock:
            script = self._scripts.get(igsid)
            if script is not None and script.times is not None:
                if script.times > 1:
                    self._scripts[igsid] = replace(script, times=script.times - 1)
                else:
                    del self._scripts[igsid]
            return script

    def scripted(self) -> list[str]:
        """Return the ids of all people with a script."""
        with self._lock:
            return list(self._scripts)

    def release_event(self) -> threading.Event:
        """Return the event that a call which hangs from now on waits for.

        A call takes it before it is counted, so that a test that sees the count
        and then releases is not too early.
        """
        with self._lock:
            return self._released

    def release(self) -> None:
        """Release the calls that hang now; a later call hangs again."""
        with self._lock:
            self._released.set()
            self._released = threading.Event()

    def reset(self) -> None:
        """Restore the state of the start."""
        with self._lock:
            self._rules = dict(self._first_rules)
            self._scripts.clear()
        self.release()
