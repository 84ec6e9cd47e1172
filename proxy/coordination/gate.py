"""A Page's gate to Meta: a circuit breaker, shared by all processes.

Up to four causes close it. Each cause is a hash of its own that is deleted an hour
after it mattered last:

    pp:g:{page}:throttled                 failures  in a row, with no success between
    pp:g:{page}:token_rejected:<digest>   since     when the first of them was
    pp:g:{page}:permission                level     times it closed, with none between
    pp:g:{page}:unavailable               until     when it opens, by Redis's clock
                                          probe     the call that tests if it is over
                                          tried     witnesses that have failed as probes
                                          by        the API key that asked last
                                          other     another key has been stopped since
                                          turn      until when that other key may probe

A cause has lapsed once its ``until`` is past: the next caller takes the probe, which
moves ``until`` on by the length of a lease, so that all others find the gate closed
while that one call is made. Its success removes the cause; its failure closes the
gate again, for longer; if it dies, the next caller may probe.

The probe is about a witness, a person whom Meta showed lately, and the caller is
answered as if the gate were closed. Otherwise the caller who comes first would decide
for all, and the one who asks most about wrong ids comes first. Only if every witness
has failed is a caller's own question the probe, if possible of another API key than
the last.

All moments here are Redis's own, so that hosts with different clocks agree.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from proxy.coordination.gate_keys import GateKeys, mark_of
from proxy.coordination.gate_state import (
    GateState,
    Opened,
    RefreshCounter,
    read_causes,
    read_percent,
    read_refreshes,
)
from proxy.coordination.local_gate import RAISED, LocalGate
from proxy.coordination.permit import (
    REMEMBERED_FOR,
    Arg,
    Count,
    Failed,
    Permit,
    igsids,
    milliseconds,
    usage_args,
)
from proxy.coordination.scripts import load_script
from proxy.coordination.witnesses import (
    PERMISSION,
    REFUSED_WITHIN,
    WITNESSES,
    Witnesses,
)
from proxy.domain.answer import FetchResult
from proxy.domain.backoff import LONGEST_CLOSURE, Backoff
from proxy.domain.failures import (
    HINTS,
    NO_WITNESS_HINT,
    Cause,
    LookupFailure,
    Overloaded,
)
from proxy.domain.profile import Igsid, Outcome, Profile, Reason, Refusal
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.store_guard import GuardedCall, StoreGuard

USAGE_RETRY_AFTER = 60.0
"""Seconds after which a caller stopped by the soft limit may ask again."""

REFRESHES_TTL = 86400.0
"""Seconds for which the refreshes are counted after the last one."""

FAILING_FOR = 120.0
"""Seconds after which failures close the gate about however few people, if all calls
have failed since."""

_NO_LIMIT = 1e9
"""A percentage that is never reached."""

log = logging.getLogger(__name__)

_LEVELS = {
    Cause.THROTTLED: logging.WARNING,
    Cause.TOKEN_REJECTED: logging.ERROR,
    Cause.PERMISSION: logging.ERROR,
    Cause.UNAVAILABLE: logging.WARNING,
}
"""A token or a permission does not come back by itself: an operator must act."""


class Gate:
    """One Page's gate.

    Every method costs one trip to the store and raises StoreUnavailable when the
    store cannot be reached, except those that end in ``without_store``.
    """

    def __init__(
        self,
        cache: ProfileCache,
        page: str,
        *,
        guard: StoreGuard,
        backoffs: Mapping[Cause, Backoff],
        probe_for: float,
        usage_soft: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*probe_for* is in seconds: as long as a lease lasts.

        *usage_soft* is a percentage; *monotonic* is in seconds.
        """
        self._page = page
        self._guard = guard
        self._backoffs = backoffs
        self._probe_for = probe_for
        self._usage_soft = usage_soft
        self._local = LocalGate(backoffs, monotonic)
        self.keys = GateKeys(cache, page)
        self.witnesses = Witnesses(
            cache, self.keys, guard, closed_for=backoffs[Cause.PERMISSION].first
        )
        script = cache.client.register_script
        self._acquire = script(load_script("gate", "acquire"))
        self._succeed = script(load_script("gate", "succeed"))
        self._fail = script(load_script("gate", "close", "fail"))
        self._release_probe = script(load_script("gate", "release_probe"))
        self._read_state = script(load_script("gate", "read_state"))
        self._open = script(load_script("gate", "open"))
        self._count = script(load_script("count"))

    def acquire(
        self,
        token_digest: str,
        *,
        client: str | None = None,
        in_background: bool = False,
    ) -> Permit:
        """Permit one call to Meta, or raise the cause that stops it.

        *client* is the name of the API key that asks. A permit with witnesses is not
        for the caller's own question.

        Raises:
            LookupFailure: the cause that keeps the gate closed longest; or
                Overloaded, *in_background*, above the soft limit on our quota.
        """
        keys = self.keys
        limit = self._usage_soft if in_background else _NO_LIMIT
        args: list[Arg] = [secrets.token_hex(8), milliseconds(self._probe_for), limit]
        args += [client or "", PERMISSION]
        with self._guarded("writes"):
            number, wait, usage, probe, last_token, to_ask, decides = cast(
                "tuple[int, int, bytes, bytes, bytes, list[bytes], int]",
                self._acquire(
                    keys=[
                        *keys.causes(token_digest).values(),
                        keys.usage,
                        keys.token,
                        keys.witnesses,
                    ],
                    args=args,
                ),
            )
        if number < 0:
            raise Overloaded(retry_after=USAGE_RETRY_AFTER)
        stopped: LookupFailure | None = None
        if number:
            cause = tuple(Cause)[number - 1]
            self._local.close(cause, token_digest, wait / 1000)
            line = {"page": self._page, "cause": cause.value, "seconds": wait / 1000}
            log.debug("gate stops a call", extra=line)
            stopped = RAISED[cause](retry_after=wait / 1000, asked=False)
            if not to_ask:
                raise stopped
        else:
            self._local.open()
        return Permit(
            token_digest,
            probe.decode("ascii"),
            read_percent(usage),
            last_token.decode("ascii", "replace") or None,
            client or "",
            igsids(to_ask),
            bool(decides),
            stopped,
        )

    def acquire_without_store(self, token_digest: str) -> None:
        """Let one call through while the store is away, as far as this process knows.

        Raises:
            LookupFailure: see `LocalGate.acquire`.
        """
        self._local.acquire(token_digest)

    def fail_without_store(self, failure: LookupFailure, result: FetchResult) -> None:
        """Remember, in this process, a *failure* that closes the gate by itself."""
        self._local.fail(failure, result)

    def release_probe(self, permit: Permit, result: FetchResult | None = None) -> None:
        """Give the probe of *permit* back: the next caller may probe.

        *result* is that of a call which says nothing of any cause, if one was made.
        """
        usage = usage_args(result)
        if permit.probe or usage[0]:
            causes = self.keys.causes(permit.token_digest).values()
            with self._guarded("writes"):
                self._release_probe(
                    keys=[self.keys.usage, *causes], args=[permit.probe, *usage]
                )

    def succeed(self, permit: Permit, outcome: Outcome, result: FetchResult) -> None:
        """After a fact from Meta, forget the causes that have lapsed or not closed yet.

        Only the probe opens a gate that is closed. ``unavailable`` (100/33) does
        not show that the permissions are there, so it leaves that cause as it is;
        and only a profile ends the doubt that a row of it has raised. The person of a
        profile becomes a witness: if it is not stored, `Witnesses.take_back` them.
        """
        keys = self.keys
        causes = keys.causes(result.token_digest)
        left_open: list[str] = []
        came = "profile" if isinstance(outcome, Profile) else "fact"
        if isinstance(outcome, Refusal) and outcome.reason is Reason.UNAVAILABLE:
            left_open, came = [causes.pop(Cause.PERMISSION)], "reply"
        rows = [keys.failed, keys.refused, keys.success, keys.not_shown]
        args: list[Arg] = [permit.probe, *usage_args(result), came, outcome.igsid]
        args += [milliseconds(REFUSED_WITHIN), WITNESSES]
        with self._guarded("writes"):
            opened = cast(
                "list[int]",
                self._succeed(
                    keys=[
                        *causes.values(),
                        keys.usage,
                        *rows,
                        keys.verdict,
                        keys.witnesses,
                    ],
                    args=args,
                ),
            )
            if left_open and permit.probe:
                self._release_probe(
                    keys=[keys.usage, *left_open], args=[permit.probe, *usage_args()]
                )
        self._log_opened([*causes][number - 1] for number in opened)

    def fail(
        self,
        permit: Permit,
        failure: LookupFailure,
        result: FetchResult,
        igsid: Igsid,
        *,
        is_doubt: bool = False,
    ) -> Failed:
        """Count *failure* about *igsid* towards its cause, if it has one.

        *is_doubt* if it stands for a 100/33, which `note_not_shown` has counted. The
        token that counts is the one that was used, which may be newer than when the
        permit was acquired.
        """
        cause = failure.cause
        if cause is None:
            self.release_probe(permit, result)
            return Failed(0.0)
        if cause is Cause.PERMISSION:
            person = None if is_doubt else igsid
            count = self.witnesses.count_refused(permit, result, person)
        else:
            count = self._count_failed(cause, permit, failure, result, igsid)
        self._note_closed(cause, count, result.token_digest)
        return Failed(count.closed_for, count.to_ask)

    def settle(self, permit: Permit, may_look: bool, result: FetchResult) -> None:
        """Report what Meta says about the witnesses of *permit*.

        It has answered, so whatever else the permit is to probe is over. Where the
        permit decides about a permission, that cause is over too if Meta *may_look*,
        and otherwise closes the gate, unless a profile has come meanwhile.
        """
        opened, count = self.witnesses.settle(permit, may_look, result)
        self._log_opened(opened)
        self._note_closed(Cause.PERMISSION, count, result.token_digest)

    def open(self, cause: Cause, token_digest: str) -> Opened:
        """Forget *cause*, so that the next caller asks Meta; return what it was.

        Of ``token_rejected``, that of the token with this digest alone.
        """
        keys = [self.keys.causes(token_digest)[cause], *self.keys.behind(cause)]
        with self._guarded("writes"):
            left, failures = cast("tuple[int, int]", self._open(keys=keys))
        self._local.open()
        return Opened(left / 1000, failures)

    def read_state(self, token_digest: str) -> GateState:
        """Return the gate's state for an operator. Changes nothing, never asks Meta."""
        keys = self.keys
        counters = [counter.value for counter in RefreshCounter]
        with self._guarded("reads"):
            rows, usage, doubted, refused, lacks, witnesses, counts = cast(
                "tuple[list[tuple[int, int, int]], bytes, int, int, int, int,"
                " list[bytes | None]]",
                self._read_state(
                    keys=[
                        *keys.causes(token_digest).values(),
                        keys.usage,
                        keys.not_shown,
                        keys.refused,
                        keys.verdict,
                        keys.witnesses,
                        keys.refreshes,
                    ],
                    args=counters,
                ),
            )
        return GateState(
            causes=read_causes(rows),
            usage_percent=read_percent(usage),
            doubted=doubted,
            refused=refused,
            lacks_permission=bool(lacks),
            witnesses=witnesses,
            refreshes=read_refreshes(counts),
        )

    def count(self, counter: RefreshCounter) -> None:
        """Add one to *counter*."""
        args: list[Arg] = [counter.value, milliseconds(REFRESHES_TTL)]
        with self._guarded("writes"):
            self._count(keys=[self.keys.refreshes], args=args)

    def _count_failed(
        self,
        cause: Cause,
        permit: Permit,
        failure: LookupFailure,
        result: FetchResult,
        igsid: Igsid,
    ) -> Count:
        backoff = self._backoffs[cause]
        causes = self.keys.causes(result.token_digest)
        keys = [self.keys.usage, causes.pop(cause), self.keys.failed]
        waits = (failure.retry_after or 0.0, backoff.first, backoff.longest)
        args: list[Arg] = [permit.probe, *usage_args(result)]
        args += [milliseconds(min(wait, LONGEST_CLOSURE)) for wait in waits]
        args += [milliseconds(REMEMBERED_FOR), permit.client, backoff.failures]
        args += [backoff.people, milliseconds(FAILING_FOR), mark_of(igsid)]
        with self._guarded("writes"):
            closes, left, failures = cast(
                "tuple[int, int, int]",
                self._fail(keys=[*keys, *causes.values()], args=args),
            )
        return Count(bool(closes), left / 1000, failures)

    def _note_closed(self, cause: Cause, count: Count, token_digest: str) -> None:
        """Log that the gate has been closed, and remember it for this process."""
        if count.closes:
            line: dict[str, object] = {"page": self._page, "cause": cause.value}
            line |= {"seconds": count.closed_for, "failures": count.failures}
            line["hint"] = NO_WITNESS_HINT if count.is_about_ids else HINTS[cause]
            log.log(_LEVELS[cause], "gate closed", extra=line)
        if count.closed_for:
            self._local.close(cause, token_digest, count.closed_for)

    def _log_opened(self, causes: Iterable[Cause]) -> None:
        for cause in causes:
            line = {"page": self._page, "cause": cause.value}
            log.warning("gate opened", extra=line)

    def _guarded(self, kind: str) -> GuardedCall:
        """Guard a call to the one node that holds all keys of a Page's gate."""
        return self._guard.call(kind, self.keys.node)
