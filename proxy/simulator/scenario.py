"""The state that tests change while the simulator runs."""

import hmac
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.simulator import people
from proxy.simulator.reading import BadRequest
from proxy.simulator.scripts import Script

MOST_SCRIPTS = 10_000


@dataclass(frozen=True, slots=True)
class TokenDeath:
    """When the token died, and of what; ``subcode`` None says nothing of the cause."""

    subcode: int | None
    died_at: float


@dataclass(frozen=True, slots=True)
class Throttle:
    """A limit that has been reached, by its code, and the wait Meta asks for."""

    code: int
    minutes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the usage header says, instead of what was really used."""

    percent: int
    minutes: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every call to Meta for one Page just now.

    ``number`` is the Page's place among all: its people have it in their ids.
    """

    token: str = field(repr=False)
    app_secret: str | None = field(default=None, repr=False)
    death: TokenDeath | None = None
    throttle: Throttle | None = None
    usage: Usage | None = None
    fields_gone: frozenset[str] = frozenset()
    number: int = 0

    @property
    def has_instagram_login(self) -> bool:
        """Whether it is answered as at graph.instagram.com, in other words."""
        return self.token.startswith("IGA")


FIRST_PAGE = "default"
"""The Page that is meant where none is named."""


class Scenario:
    """The rules, and who is scripted. Thread-safe; starts and resets to *rules*.

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
        """Those of the first Page."""
        return self._rules[FIRST_PAGE]

    @property
    def pages(self) -> list[str]:
        """The names of all Pages."""
        return list(self._rules)

    def rules_of(self, page: str) -> Rules:
        """The rules of a Page just now."""
        return self._rules[page]

    def page_of(self, token: str | None) -> str | None:
        """Whose token it is; None: nobody's."""
        given = (token or "").encode()
        for page, rules in self._rules.items():
            if hmac.compare_digest(given, rules.token.encode()):
                return page
        return None

    def page_with(self, igsid: str) -> str | None:
        """Whose people have ids like this one; None: no Page's more than another's."""
        for page, rules in self._rules.items():
            if igsid.startswith(people.prefix(rules.number)):
                return page
        return None

    def change(
        self,
        *,
        page: str = FIRST_PAGE,
        token: str | None = None,
        fields_gone: frozenset[str] | None = None,
    ) -> None:
        """Change the token that is accepted, or the fields Meta does not know."""
        if token is not None:
            self._replace(page, token=token)
        if fields_gone is not None:
            self._replace(page, fields_gone=fields_gone)

    def let_token_die(self, death: TokenDeath | None, page: str = FIRST_PAGE) -> None:
        """Kill the token, or with None bring it back to life."""
        self._replace(page, death=death)

    def throttle(self, throttle: Throttle | None, page: str = FIRST_PAGE) -> None:
        """Refuse every profile call with a limit's error, or with None no more."""
        self._replace(page, throttle=throttle)

    def say_usage(self, usage: Usage | None, page: str = FIRST_PAGE) -> None:
        """Fix the usage header, or with None let it grow with the calls again."""
        self._replace(page, usage=usage)

    def _replace(self, page: str, **changes: Any) -> None:
        with self._lock:
            self._rules[page] = replace(self._rules[page], **changes)

    def direct(self, igsid: str, script: Script) -> None:
        """Give *igsid* a script, in place of any other.

        Raises:
            BadRequest: too many people have one already.
        """
        with self._lock:
            if igsid not in self._scripts and len(self._scripts) >= MOST_SCRIPTS:
                raise BadRequest(f"at most {MOST_SCRIPTS} people can have a script")
            self._scripts[igsid] = script

    def undirect(self, igsid: str) -> None:
        """Let *igsid* be as before."""
        with self._lock:
            self._scripts.pop(igsid, None)

    def take_script(self, igsid: str) -> Script | None:
        """The script for one call about *igsid*, which uses up one of its times."""
        with self._lock:
            script = self._scripts.get(igsid)
            if script is not None and script.times is not None:
                if script.times > 1:
                    self._scripts[igsid] = replace(script, times=script.times - 1)
                else:
                    del self._scripts[igsid]
            return script

    def scripted(self) -> list[str]:
        """Everybody who has a script."""
        with self._lock:
            return list(self._scripts)

    def release_for(self) -> threading.Event:
        """What a call that hangs from now on waits for.

        A call takes it before it is counted: whoever saw the count and then
        releases must not be too early.
        """
        with self._lock:
            return self._released

    def release(self) -> None:
        """Let go on what hangs now; a later call hangs again."""
        with self._lock:
            self._released.set()
            self._released = threading.Event()

    def reset(self) -> None:
        """Everything as at the start."""
        with self._lock:
            self._rules = dict(self._first_rules)
            self._scripts.clear()
        self.release()
