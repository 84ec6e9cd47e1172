"""The state that tests change while the simulator runs."""

import threading
from dataclasses import dataclass, field, replace

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
    """What holds for every call to Meta just now."""

    token: str = field(repr=False)
    app_secret: str | None = field(default=None, repr=False)
    death: TokenDeath | None = None
    throttle: Throttle | None = None
    usage: Usage | None = None
    fields_gone: frozenset[str] = frozenset()


class Scenario:
    """The rules, and who is scripted. Thread-safe; starts and resets to *rules*."""

    def __init__(self, rules: Rules) -> None:
        self._first_rules = rules
        self._lock = threading.Lock()
        self._scripts: dict[str, Script] = {}
        self._released = threading.Event()
        self.rules = rules

    def change(
        self,
        *,
        token: str | None = None,
        fields_gone: frozenset[str] | None = None,
    ) -> None:
        """Change the token that is accepted, or the fields Meta does not know."""
        with self._lock:
            if token is not None:
                self.rules = replace(self.rules, token=token)
            if fields_gone is not None:
                self.rules = replace(self.rules, fields_gone=fields_gone)

    def let_token_die(self, death: TokenDeath | None) -> None:
        """Kill the token, or with None bring it back to life."""
        with self._lock:
            self.rules = replace(self.rules, death=death)

    def throttle(self, throttle: Throttle | None) -> None:
        """Refuse every profile call with a limit's error, or with None no more."""
        with self._lock:
            self.rules = replace(self.rules, throttle=throttle)

    def say_usage(self, usage: Usage | None) -> None:
        """Fix the usage header, or with None let it grow with the calls again."""
        with self._lock:
            self.rules = replace(self.rules, usage=usage)

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
            self.rules = self._first_rules
            self._scripts.clear()
        self.release()
