"""The witnesses of a Page: people whom Meta showed, who decide about a permission.

100/33 says that Meta does not show a person, and not why. Many different people in a
row with it may all have gone, or be another Page's; or the Page has lost a permission.
So Meta is asked about people whom it showed lately.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from proxy.coordination.gate_keys import GateKeys, mark_of
from proxy.coordination.permit import (
    REMEMBERED_FOR,
    Arg,
    Count,
    Permit,
    igsids,
    milliseconds,
    usage_args,
)
from proxy.coordination.scripts import load_script
from proxy.domain.answer import FetchResult
from proxy.domain.failures import Cause
from proxy.domain.profile import Igsid
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.store_guard import GuardedCall, StoreGuard

WITNESSES = 3
"""How many of the people whom Meta showed last are kept."""

PEOPLE_IN_A_ROW = 10
"""Different people, with no success between, that raise the question whether a
permission is lost: those that Meta does not show, or those with a code about the app or
the Page."""

ROW_TTL = 86400.0
"""Seconds for which such a row, and the verdict, are kept after the last person."""

ASKED_EVERY = 60.0
"""Seconds between two times that the witnesses are asked, over all processes."""

REFUSED_LATELY, REFUSED_WITHIN = 2, 600.0
"""People with a code about the app or the Page, within so many seconds, that show a
lost permission if Meta has not looked for any person in that time."""

REFUSED_CALLS = 20
"""Calls that may end in such a code each ASKED_EVERY, while the witnesses are shown."""

PERMISSION = [*Cause].index(Cause.PERMISSION) + 1
"""The number, for the scripts, of the cause that the witnesses decide about."""


class Doubt(NamedTuple):
    """Whether a permission may be lost, after a 100/33.

    *may_look* is what the witnesses say, None while that is not known and there are
    enough people to ask; *is_raised* is False with too few people. *to_ask* are the
    witnesses that this caller has to have asked.
    """

    is_raised: bool
    may_look: bool | None
    to_ask: tuple[Igsid, ...]


class Forgotten(NamedTuple):
    """Where a person was before they were erased."""

    witness: bool
    row: bool


class Witnesses:
    """The witnesses of one Page, and the people in a row that Meta does not show it.

    Every method costs one trip and raises StoreUnavailable when the store cannot be
    reached.
    """

    def __init__(
        self,
        cache: ProfileCache,
        keys: GateKeys,
        guard: StoreGuard,
        *,
        closed_for: float,
    ) -> None:
        """*closed_for*, in seconds: how long a lost permission closes the gate."""
        self._cache = cache
        self._keys = keys
        self._guard = guard
        self._closed_for = closed_for
        self._owed: set[Igsid] = set()
        script = cache.client.register_script
        self._not_shown = script(load_script("gate", "doubt", "not_shown"))
        self._refuse = script(load_script("gate", "close", "doubt", "refuse"))
        self._settle = script(load_script("gate", "close", "doubt", "settle"))
        self._forget = script(load_script("forget"))

    def note_not_shown(self, igsid: Igsid) -> Doubt:
        """Note that Meta does not show *igsid* (100/33)."""
        keys = self._keys
        args: list[str | int] = [
            mark_of(igsid),
            PEOPLE_IN_A_ROW,
            milliseconds(ROW_TTL),
            milliseconds(ASKED_EVERY),
        ]
        with self._guarded():
            count, may_look, to_ask = cast(
                "tuple[int, bytes, list[bytes]]",
                self._not_shown(
                    keys=[keys.not_shown, keys.verdict, keys.witnesses], args=args
                ),
            )
        return Doubt(
            count >= PEOPLE_IN_A_ROW,
            may_look == b"1" if may_look else None,
            igsids(to_ask),
        )

    def count_refused(
        self, permit: Permit, result: FetchResult, igsid: Igsid | None
    ) -> Count:
        """Count a failure about the app or the Page, on a call about *igsid*.

        None stands for a person who is in the row of those not shown already.
        """
        keys = self._keys
        causes = keys.causes(result.token_digest)
        decided = causes.pop(Cause.PERMISSION)
        rows = [keys.refused, keys.not_shown, keys.success, keys.verdict]
        args: list[Arg] = [permit.probe, *usage_args(result)]
        args += [milliseconds(self._closed_for), milliseconds(REMEMBERED_FOR)]
        args += [permit.client, mark_of(igsid) if igsid else "", PEOPLE_IN_A_ROW]
        args += [REFUSED_LATELY, milliseconds(REFUSED_WITHIN), milliseconds(ROW_TTL)]
        args += [milliseconds(ASKED_EVERY), REFUSED_CALLS]
        with self._guarded():
            closes, left, failures, to_ask, witnesses = cast(
                "tuple[int, int, int, list[bytes], int]",
                self._refuse(
                    keys=[keys.usage, decided, *rows, keys.witnesses, *causes.values()],
                    args=args,
                ),
            )
        is_about_ids = igsid is None and not witnesses
        return Count(bool(closes), left / 1000, failures, igsids(to_ask), is_about_ids)

    def settle(
        self, permit: Permit, may_look: bool, result: FetchResult
    ) -> tuple[list[Cause], Count]:
        """Report what Meta says about the witnesses, as `Gate.settle` does.

        Return the causes that no longer close the gate.
        """
        keys = self._keys
        causes = keys.causes(result.token_digest)
        rows = [keys.not_shown, keys.verdict, keys.failed, keys.witnesses]
        args: list[Arg] = [permit.probe, *usage_args(result)]
        args += [PERMISSION if permit.decides_permission else 0, int(may_look)]
        args += [PEOPLE_IN_A_ROW]
        waits = (self._closed_for, REMEMBERED_FOR, ROW_TTL, ASKED_EVERY)
        args += [milliseconds(wait) for wait in waits]
        with self._guarded():
            opened, closes, left = cast(
                "tuple[list[int], int, int]",
                self._settle(keys=[keys.usage, *causes.values(), *rows], args=args),
            )
        count = Count(bool(closes), left / 1000, PEOPLE_IN_A_ROW)
        return [[*causes][number - 1] for number in opened], count

    def take_back(self, igsid: Igsid) -> None:
        """Forget what a call whose result was not stored has noted of its person.

        If the store is away, `take_back_owed` does so later.
        """
        self._owed.add(igsid)
        self.take_back_owed()

    def take_back_owed(self) -> None:
        """Forget the people whom a failing store kept `take_back` from forgetting.

        No trip if there are none. They are no more than there were calls under way
        when the store failed.
        """
        keys = [self._cache.whole_key(key) for key in self._keys.about_people()]
        for igsid in tuple(self._owed):
            with self._guarded():
                self._forget(keys=keys, args=[igsid, mark_of(igsid)])
            self._owed.discard(igsid)

    def forget(self, igsid: Igsid) -> Forgotten:
        """Erase a person, in every replica too."""
        script, groups = load_script("forget"), [self._keys.about_people()]
        with self._guarded():
            [(witness, rows)] = self._cache.replication.run_replicated(
                script, groups, [igsid, mark_of(igsid)]
            )
        return Forgotten(bool(witness), bool(rows))

    def _guarded(self) -> GuardedCall:
        return self._guard.call("writes", self._keys.node)
