"""The witnesses of a Page: who they are, what they decide, and how they are probed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import redis

from proxy.coordination.gate import Gate
from proxy.coordination.gate_keys import mark_of
from proxy.coordination.permit import Failed, Permit
from proxy.coordination.witnesses import (
    ASKED_EVERY,
    PEOPLE_IN_A_ROW,
    REFUSED_CALLS,
    REFUSED_WITHIN,
    Doubt,
    Forgotten,
)
from proxy.domain.answer import FetchResult
from proxy.domain.failures import (
    HINTS,
    NO_WITNESS_HINT,
    Cause,
    GraphUnavailable,
    PermissionMissing,
    Throttled,
)
from proxy.domain.profile import Igsid, Reason
from tests.helpers.builders import ADA, a_profile, a_refusal
from tests.helpers.gate_calls import (
    PROBE_FOR,
    TOKEN,
    about,
    fail,
    fail_late,
    fail_with,
    lapse,
    stopped_by,
    strangers,
    succeed,
    succeed_with,
)
from tests.helpers.world import BEN

CLEO, DOV = Igsid("1254001234567892"), Igsid("1254001234567893")
WITNESSES, VERDICT = "pp:d:{default}:witnesses", "pp:d:{default}:verdict"
SUCCESS = "pp:d:{default}:success"

no_permit = Permit(TOKEN, "", None)


def show(gate: Gate, raw: redis.Redis, *people: Igsid) -> None:
    """Let Meta show *people*, one after the other; the last one is the latest."""
    for igsid in people:
        succeed(gate, a_profile(igsid=igsid))
        seconds, _ = raw.time()
        place = people.index(igsid) - len(people)
        raw.zadd(WITNESSES, {igsid: seconds * 1000 + place})


def hide(gate: Gate, people: int = PEOPLE_IN_A_ROW) -> Doubt:
    """Let Meta not show so many *people*, each different (100/33)."""
    for _ in range(people):
        doubt = gate.witnesses.note_not_shown(next(strangers))
    return doubt


def refuse(gate: Gate, people: int = PEOPLE_IN_A_ROW) -> Failed:
    """Let calls about so many *people* fail with a code about the app."""
    for _ in range(people):
        failure = PermissionMissing()
        result = FetchResult(failure, None, TOKEN)
        failed = gate.fail(no_permit, failure, result, next(strangers))
    return failed


def settle(
    gate: Gate, may_look: bool, permit: Permit = no_permit, decides: bool = True
) -> None:
    permit = permit._replace(decides_permission=decides)
    gate.settle(permit, may_look, FetchResult(a_profile(), None, TOKEN))


def let_ask_again(raw: redis.Redis) -> None:
    """End the time for which the witnesses are not asked again."""
    raw.hset(VERDICT, "ask_after", 1)


def shown(raw: redis.Redis) -> Sequence[bytes]:
    return raw.zrevrange(WITNESSES, 0, -1)


def test_witnesses_are_the_last_three_people_with_a_profile(gate, raw) -> None:
    """Latest first, for a week; a refusal makes none, and erasing can remove one."""
    show(gate, raw, ADA, BEN, CLEO, DOV)
    succeed(gate, a_refusal(igsid=Igsid("99999")))

    assert shown(raw) == [DOV.encode(), CLEO.encode(), BEN.encode()]
    assert 6.9 * 86_400_000 < raw.pttl(WITNESSES) <= 7 * 86_400_000


def test_witness_is_dropped_a_week_after_meta_showed_them(gate, raw) -> None:
    """Even if another has been shown since."""
    show(gate, raw, ADA, BEN)
    raw.zincrby(WITNESSES, -7 * 86_400_000, ADA)

    succeed(gate, a_profile(igsid=CLEO))

    assert set(shown(raw)) == {CLEO.encode(), BEN.encode()}


def test_profile_that_was_not_stored_is_taken_back(gate, raw) -> None:
    """Its person may have been erased meanwhile."""
    show(gate, raw, ADA, BEN)

    gate.witnesses.take_back(ADA)

    assert shown(raw) == [BEN.encode()]


def test_erasing_a_person_removes_witness_and_marks(gate, raw) -> None:
    """It says what there was, and nothing else of the Page changes."""
    show(gate, raw, ADA, BEN)
    gate.witnesses.note_not_shown(CLEO)
    fail(gate, GraphUnavailable(), CLEO)
    fail(gate, PermissionMissing(), CLEO)

    found = [gate.witnesses.forget(igsid) for igsid in (ADA, CLEO, DOV, ADA)]

    assert found == [
        Forgotten(witness=True, row=False),
        Forgotten(witness=False, row=True),
        Forgotten(witness=False, row=False),
        Forgotten(witness=False, row=False),
    ]
    assert shown(raw) == [BEN.encode()]
    assert not any(
        raw.exists(f"pp:d:{{default}}:{row}")
        for row in ("not_shown", "failed", "refused")
    )


def test_ten_different_people_not_shown_raise_the_question(gate, raw) -> None:
    """One person counts once; the tenth caller has the witnesses asked."""
    show(gate, raw, ADA, BEN)
    one_person = [gate.witnesses.note_not_shown(CLEO) for _ in range(30)]

    before, raised, again = hide(gate, PEOPLE_IN_A_ROW - 2), hide(gate, 1), hide(gate)

    assert {doubt.is_raised for doubt in one_person} == {False}
    assert before == Doubt(False, None, ())
    assert raised == Doubt(True, None, (BEN, ADA))
    assert again == Doubt(True, None, ())


def test_witnesses_are_asked_once_a_minute_over_all_processes(
    gate, new_gate, raw
) -> None:
    """Within the minute the last verdict stands; after it, until the next one comes."""
    show(gate, raw, ADA)
    asked = hide(gate).to_ask
    settle(gate, True)
    within = hide(new_gate())
    asks_in = raw.hget(VERDICT, "ask_after")
    let_ask_again(raw)
    after = hide(new_gate(), 1)

    seconds, _ = raw.time()
    assert asked == (ADA,)
    assert within == Doubt(True, True, ())
    assert after == Doubt(True, True, (ADA,))
    assert 0 < int(asks_in) - seconds * 1000 <= (ASKED_EVERY + 1) * 1000


def test_without_witness_ten_people_not_shown_mean_a_lost_permission(gate, raw) -> None:
    """At once, but for 5 s at first: the ids may be another Page's."""
    doubt = hide(gate)
    failure = PermissionMissing()
    result = FetchResult(failure, None, TOKEN)
    closed_for = []
    permit = no_permit
    for _ in range(5):
        failed = gate.fail(permit, failure, result, ADA, is_doubt=True)
        closed_for.append(failed.closed_for)
        assert isinstance(stopped_by(gate), PermissionMissing)
        lapse(raw, Cause.PERMISSION)
        permit = gate.acquire(TOKEN)

    assert doubt == Doubt(True, False, ())
    assert closed_for == [about(each) for each in (5.0, 10.0, 20.0, 40.0, 60.0)]


@pytest.mark.parametrize(
    ("shown", "is_doubt", "hint"),
    [
        ([], True, NO_WITNESS_HINT),
        ([], False, HINTS[Cause.PERMISSION]),
        ([ADA], True, HINTS[Cause.PERMISSION]),
    ],
)
def test_hint_without_witness_says_that_the_ids_may_be_wrong(
    gate, raw, caplog, shown, is_doubt, hint
) -> None:
    """Not if Meta has named a permission, or a witness has decided."""
    show(gate, raw, *shown)
    hide(gate)
    if shown:
        settle(gate, False)
        lapse(raw, Cause.PERMISSION)
        caplog.clear()

    failure = PermissionMissing()
    result = FetchResult(failure, None, TOKEN)
    gate.fail(no_permit, failure, result, CLEO, is_doubt=is_doubt)

    [line] = [r for r in caplog.records if r.message == "gate closed"]
    assert line.hint == hint


def test_witness_who_is_not_shown_closes_the_gate(gate, raw) -> None:
    """Until a profile comes, every 100/33 counts as a missing permission."""
    show(gate, raw, ADA)
    hide(gate)

    settle(gate, False)
    stopped = stopped_by(gate)
    closed = hide(gate, 1)
    succeed_with(gate, no_permit, a_profile())
    after = hide(gate, 1)

    assert isinstance(stopped, PermissionMissing)
    assert stopped.retry_after == about(60.0)
    assert closed == Doubt(True, False, ())
    assert after == Doubt(False, None, ())


def test_witness_who_is_shown_leaves_the_gate_open(gate, raw) -> None:
    """A caller who asks about wrong ids is that caller's own trouble."""
    show(gate, raw, ADA)
    hide(gate)

    settle(gate, True)

    assert hide(gate, 50) == Doubt(True, True, ())
    assert gate.acquire(TOKEN).probe == ""


def test_verdict_that_comes_after_a_profile_closes_nothing(gate, raw) -> None:
    """It is about how things were."""
    show(gate, raw, ADA)
    hide(gate)
    succeed(gate, a_profile(igsid=BEN))

    settle(gate, False)

    assert gate.acquire(TOKEN).probe == ""


def test_rows_of_different_people_are_bounded(gate, raw) -> None:
    """However many people a caller asks about."""
    show(gate, raw, ADA)
    hide(gate, 30)
    refuse(gate, 30)
    for _ in range(10):
        fail_late(gate, GraphUnavailable())

    rows = [f"pp:d:{{default}}:{row}" for row in ("not_shown", "failed")]
    assert [raw.scard(row) for row in rows] == [PEOPLE_IN_A_ROW, 3]
    assert raw.zcard("pp:d:{default}:refused") == PEOPLE_IN_A_ROW


def test_success_ends_the_row_of_people_about_whom_meta_failed(gate) -> None:
    """Those of before it do not count towards the three."""
    for igsid in (ADA, BEN):
        fail(gate, GraphUnavailable(), igsid)
    succeed(gate)

    after = [fail(gate, GraphUnavailable(), igsid) for igsid in (CLEO,) * 4 + (DOV,)]

    assert after == [0.0] * 5


def test_calls_that_may_go_out_are_counted_anew_each_minute(gate, raw) -> None:
    """While the witnesses are shown, and codes about the app come."""
    show(gate, raw, ADA)
    refuse(gate)
    settle(gate, True)
    refuse(gate, REFUSED_CALLS - 2)
    raw.hset(VERDICT, "window_until", 1)

    assert refuse(gate, REFUSED_CALLS - 1) == Failed(0.0)


def test_erasing_a_person_reaches_the_row_of_the_version_before(gate, raw) -> None:
    """Its processes may still run beside this one."""
    raw.sadd("pp:d:{default}", mark_of(CLEO), mark_of(DOV))
    raw.pexpire("pp:d:{default}", 60_000)

    found = gate.witnesses.forget(CLEO)

    assert found == Forgotten(witness=False, row=True)
    assert raw.smembers("pp:d:{default}") == {mark_of(DOV).encode()}


@pytest.mark.parametrize("reason", Reason)
def test_row_of_people_not_shown_is_ended_by_a_profile_alone(gate, raw, reason) -> None:
    """No refusal shows that Meta may look at people."""
    show(gate, raw, ADA)
    hide(gate, PEOPLE_IN_A_ROW - 1)
    succeed(gate, a_refusal(reason=reason))
    after_refusal = hide(gate, 1)
    succeed(gate)
    after_profile = hide(gate, 1)

    assert (after_refusal.is_raised, after_profile.is_raised) == (True, False)


def test_codes_about_the_app_are_told_whatever_the_witnesses_get(gate, raw) -> None:
    """A tester stays visible to an app that has lost Advanced Access."""
    show(gate, raw, ADA)

    nine = refuse(gate, PEOPLE_IN_A_ROW - 1)
    before = gate.read_state(TOKEN).lacks_permission
    tenth = refuse(gate, 1)
    settle(gate, True)
    state = gate.read_state(TOKEN)

    assert (nine, tenth) == (Failed(0.0), Failed(0.0, (ADA,)))
    assert (before, state.lacks_permission, state.refused) == (False, True, 10)
    assert gate.acquire(TOKEN).probe == ""


def test_one_person_with_a_code_about_the_app_raises_no_question(gate, raw) -> None:
    """However often a caller asks about them."""
    raw.delete(SUCCESS)
    for _ in range(40):
        assert fail(gate, PermissionMissing(), ADA) == 0.0

    assert not gate.read_state(TOKEN).lacks_permission


def test_two_people_are_enough_if_meta_has_shown_nobody_for_ten_minutes(
    gate, raw
) -> None:
    """On a quiet Page ten people would take a day."""
    show(gate, raw, ADA)
    refuse(gate, 2)
    with_success = gate.read_state(TOKEN).lacks_permission
    ttl = raw.pttl(SUCCESS)
    raw.delete(SUCCESS)

    asked = refuse(gate, 1).to_ask

    assert with_success is False
    assert 0 < ttl <= REFUSED_WITHIN * 1000
    assert gate.read_state(TOKEN).lacks_permission
    assert asked == (ADA,)


@pytest.mark.parametrize("reason", Reason)
def test_success_ends_the_row_of_codes_about_the_app(gate, raw, reason) -> None:
    """A refusal does too, except 100/33, which Meta gives to an app without rights."""
    show(gate, raw, ADA)
    refuse(gate)
    succeed(gate, a_refusal(reason=reason))

    state = gate.read_state(TOKEN)

    is_ended = reason is not Reason.UNAVAILABLE
    assert (state.lacks_permission, state.refused) == (
        (False, 0) if is_ended else (True, 10)
    )


def test_witness_s_profile_does_not_end_the_row_of_codes_about_the_app(
    gate, raw
) -> None:
    """Only what callers get does."""
    show(gate, raw, ADA)
    refuse(gate)

    settle(gate, True)

    assert gate.read_state(TOKEN).lacks_permission


def test_twenty_such_calls_a_minute_go_out_while_the_witnesses_are_shown(
    gate, raw
) -> None:
    """The gate is closed for the rest of the minute, and then open without a probe."""
    show(gate, raw, ADA)
    refuse(gate)
    settle(gate, True)

    before = refuse(gate, REFUSED_CALLS - 2)
    closed_for = refuse(gate, 1).closed_for
    ttl = raw.pttl("pp:g:{default}:permission")

    assert before == Failed(0.0)
    assert closed_for == about(60.0)
    assert isinstance(stopped_by(gate), PermissionMissing)
    assert ttl <= closed_for * 1000


def test_codes_about_the_app_close_the_gate_if_the_witnesses_are_not_shown(
    gate, raw
) -> None:
    """For a minute."""
    show(gate, raw, ADA)
    refuse(gate)

    settle(gate, False)

    assert stopped_by(gate).retry_after == about(60.0)


def test_probe_is_about_the_latest_witness(gate, raw) -> None:
    """The caller is answered as if the gate were closed, and so are all others."""
    show(gate, raw, ADA, BEN)
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    permit = gate.acquire(TOKEN)
    other = stopped_by(gate)

    assert (permit.witnesses, permit.decides_permission) == ((BEN,), False)
    assert isinstance(permit.stopped, Throttled)
    assert (permit.stopped.asked, permit.stopped.retry_after) == (False, PROBE_FOR)
    assert isinstance(other, Throttled)


def test_witness_s_answer_opens_the_gate(gate, raw) -> None:
    """Whatever Meta says of them: it has answered. The row of failures ends."""
    show(gate, raw, ADA)
    for _ in range(5):
        fail(gate, GraphUnavailable())
    lapse(raw, Cause.UNAVAILABLE)

    settle(gate, False, gate.acquire(TOKEN), decides=False)
    after = [fail(gate, GraphUnavailable(), BEN) for _ in range(5)]

    assert after == [0.0] * 5


def test_failed_probe_moves_on_to_the_witness_before(gate, raw) -> None:
    """Then to a caller's own question, and then to the latest witness again."""
    show(gate, raw, ADA, BEN)
    fail(gate, Throttled())
    asked = []
    for _ in range(5):
        lapse(raw, Cause.THROTTLED)
        permit = gate.acquire(TOKEN)
        asked.append(permit.witnesses)
        fail_with(gate, permit, Throttled())

    assert asked == [(BEN,), (ADA,), (), (BEN,), (ADA,)]


@pytest.mark.parametrize("failure", [None, GraphUnavailable.about_person()])
def test_probe_that_learns_nothing_moves_on_at_once(gate, raw, failure) -> None:
    """No call could be made, or its reply was odd: that says nothing of the cause."""
    show(gate, raw, ADA, BEN)
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)
    asked = []
    for _ in range(3):
        permit = gate.acquire(TOKEN)
        asked.append(permit.witnesses)
        if failure:
            fail_with(gate, permit, failure)
        else:
            gate.release_probe(permit)

    assert asked == [(BEN,), (ADA,), ()]


def test_permission_is_probed_by_all_witnesses_in_one_go(gate, raw) -> None:
    """If none is shown, a caller's own question is next; then the witnesses again."""
    show(gate, raw, ADA, BEN)
    hide(gate)
    settle(gate, False)
    asked = []
    for _ in range(3):
        lapse(raw, Cause.PERMISSION)
        permit = gate.acquire(TOKEN)
        asked.append((permit.witnesses, permit.decides_permission))
        if permit.witnesses:
            settle(gate, False, permit)
        else:
            fail_with(gate, permit, PermissionMissing())

    assert asked == [((BEN, ADA), True), ((), True), ((BEN, ADA), True)]
    assert stopped_by(gate).retry_after == about(60.0)


def test_permission_that_is_back_opens_the_gate(gate, raw) -> None:
    """By the witness, without any caller's person."""
    show(gate, raw, ADA)
    hide(gate)
    settle(gate, False)
    lapse(raw, Cause.PERMISSION)

    settle(gate, True, gate.acquire(TOKEN))

    assert gate.acquire(TOKEN).probe == ""
    assert hide(gate, 1) == Doubt(True, True, ())


def test_own_question_of_another_api_key_is_the_probe(gate, raw) -> None:
    """If another has asked meanwhile: the one that closed the gate asks most often."""
    for _ in range(5):
        fail(gate, GraphUnavailable(), client="wrong")
    with pytest.raises(GraphUnavailable):
        gate.acquire(TOKEN, client="inbox")
    lapse(raw, Cause.UNAVAILABLE)

    with pytest.raises(GraphUnavailable) as stopped:
        gate.acquire(TOKEN, client="wrong")
    permit = gate.acquire(TOKEN, client="inbox")

    assert stopped.value.retry_after == about(10.0)
    assert permit.probe


def test_turn_of_another_api_key_ends(gate, raw) -> None:
    """After as long as the gate was closed: that key may have gone."""
    for _ in range(5):
        fail(gate, GraphUnavailable(), client="wrong")
    with pytest.raises(GraphUnavailable):
        gate.acquire(TOKEN, client="inbox")
    lapse(raw, Cause.UNAVAILABLE)
    raw.hset("pp:g:{default}:unavailable", "turn", 1)

    assert gate.acquire(TOKEN, client="wrong").probe


def test_only_api_key_probes_by_its_own_questions(gate, raw) -> None:
    """There is no other to wait for."""
    for _ in range(5):
        fail(gate, GraphUnavailable(), client="inbox")
    with pytest.raises(GraphUnavailable):
        gate.acquire(TOKEN, client="inbox")
    lapse(raw, Cause.UNAVAILABLE)

    assert gate.acquire(TOKEN, client="inbox").probe


@pytest.mark.parametrize("cause", [Cause.UNAVAILABLE, Cause.THROTTLED])
def test_operator_opens_a_cause(gate, raw, cause) -> None:
    """The next caller asks Meta, for its own question; failures count from 0."""
    show(gate, raw, ADA)
    failure = Throttled() if cause is Cause.THROTTLED else GraphUnavailable()
    for _ in range(1 if cause is Cause.THROTTLED else 5):
        fail(gate, failure)

    opened, again = gate.open(cause, TOKEN), gate.open(cause, TOKEN)

    assert opened.closed_for == about(60.0 if cause is Cause.THROTTLED else 5.0)
    assert opened.failures == (1 if cause is Cause.THROTTLED else 5)
    assert again == (0.0, 0)
    assert gate.acquire(TOKEN).probe == ""
    assert fail(gate, GraphUnavailable(), BEN) == 0.0


def test_operator_opens_the_permission_gate(gate, raw) -> None:
    """The rows that led to it are over too, and the witnesses stay."""
    show(gate, raw, ADA)
    refuse(gate)
    hide(gate)
    settle(gate, False)

    gate.open(Cause.PERMISSION, TOKEN)

    state = gate.read_state(TOKEN)
    assert gate.acquire(TOKEN).probe == ""
    assert (state.doubted, state.refused, state.lacks_permission) == (0, 0, False)
    assert state.witnesses == 1
