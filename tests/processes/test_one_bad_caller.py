"""One caller's wrong ids, or one person about whom Meta fails: no other notices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.embedded import engine
from tests.helpers.processes import (
    ADA,
    BEN,
    EVE,
    Service,
    crowd,
    new_key,
    wait_until,
)
from tests.helpers.stack import Stack, start_stack

NOT_SHOWN = {"code": 100, "subcode": 33, "status": 400}
WITNESSES = "pp:d:{default}:witnesses"


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    """Two services on one store; the gate does not depend on the near cache."""
    with (
        engine.start() as store,
        start_stack(store.url, services=({}, {})) as stack,
    ):
        yield stack


def wrong(number: int) -> str:
    """The id of a person of another Page."""
    return f"1254999{number:09d}"


def code_of(answer: Any) -> str | None:
    return answer.json().get("code")


def stats(stack: Stack) -> dict[str, Any]:
    return dict(stack.other.get("/admin/stats").json())


def is_closed(stack: Stack, cause: str) -> bool:
    return bool(stats(stack)["gates"][cause]["closed_for"] > 0)


def lapse(stack: Stack, cause: str) -> None:
    """End the time for which *cause* keeps the gate closed."""
    stack.redis.hset(f"pp:g:{{default}}:{cause}", "until", 1)


def traces(store: redis.Redis, igsid: str) -> list[str]:
    """The keys that name a person, or have them in their value."""
    found = []
    for key in store.scan_iter():
        read = {
            b"string": store.get,
            b"hash": store.hgetall,
            b"set": store.smembers,
            b"zset": lambda key: store.zrange(key, 0, -1),
        }[store.type(key)]
        if igsid in f"{key} {read(key)}":
            found.append(key.decode())
    return found


@contextmanager
def with_two_keys(stack: Stack, folder: Path) -> Iterator[tuple[Any, Any]]:
    """Functions that ask one more instance about a person, by two API keys."""
    keys = folder / "api_keys"
    (inbox, first), (crm, second) = new_key("inbox", "read"), new_key("crm", "read")
    keys.write_text(f"{first}\n{second}\n")
    service = Service(**stack.settings | {"API_KEYS_FILE": str(keys)})

    def asking(key: str) -> Any:
        bearer = {"Authorization": f"Bearer {key}"}
        return lambda igsid: service.get(f"/profiles/{igsid}", headers=bearer)

    try:
        yield asking(inbox), asking(crm)
    finally:
        service.stop()


def test_caller_with_wrong_ids_stops_no_caller_with_real_ones(stack) -> None:
    """Forty wrong ids between any two new people."""
    real = [stack.service.get(f"/profiles/{ADA}")]
    refused = []
    for turn in range(4):
        for n in range(40):
            service = stack.services[n % 2]
            refused.append(service.get(f"/profiles/{wrong(100 * turn + n)}"))
        real.append(stack.service.get(f"/profiles/{crowd(turn)}"))

    assert [answer.status_code for answer in real] == [200] * 5
    assert {code_of(answer) for answer in refused} == {"unavailable"}
    assert not is_closed(stack, "permission")
    assert stack.meta.calls(ADA) == 2  # The witness is asked about once a minute.


def test_caller_with_real_ids_opens_the_gate_where_there_is_no_witness(
    stack, tmp_path
) -> None:
    """The next probe is a question of the other API key, and finds a witness."""
    with with_two_keys(stack, tmp_path) as (inbox, crm):
        codes = [code_of(crm(wrong(n))) for n in range(12)]
        stopped = inbox(EVE)
        lapse(stack, "permission")
        not_its_turn = crm(wrong(20))
        opened = inbox(crowd(1))
        after = crm(wrong(21))

    assert codes == ["unavailable"] * 9 + ["permission_missing"] * 3
    assert code_of(stopped) == code_of(not_its_turn) == "permission_missing"
    assert stack.meta.calls(wrong(20)) == 0
    assert opened.status_code == 200
    assert code_of(after) == "unavailable"


def test_real_person_is_answered_soon_where_there_is_no_witness(
    stack, tmp_path
) -> None:
    """One caller asks five wrong ids a second; the other's next question is a probe."""
    with with_two_keys(stack, tmp_path) as (inbox, crm):
        started = time.monotonic()
        codes = []
        for n in range(150):
            crm(wrong(n))
            if n % 10 == 9:
                answer = inbox(crowd(n))
                codes.append(code_of(answer))
                if answer.status_code == 200:
                    break
            time.sleep(0.2)
        took = time.monotonic() - started

    assert codes[0] == "permission_missing"
    assert answer.status_code == 200
    assert took < 20


def test_lost_permission_closes_the_gate_until_it_is_back(stack) -> None:
    """Meta shows the witness no more; when it does again, one call opens the gate."""
    stack.service.get(f"/profiles/{ADA}")
    for igsid in (ADA, *map(crowd, range(20))):
        stack.meta.person(igsid, error=NOT_SHOWN)
    for n in range(10):
        stack.service.get(f"/profiles/{crowd(n)}")
    wait_until(lambda: is_closed(stack, "permission"), 5, "the gate is closed")
    calls = stack.meta.calls()
    while_closed = [stack.other.get(f"/profiles/{crowd(n)}") for n in range(10, 20)]
    stored = stack.other.get(f"/profiles/{ADA}")

    lapse(stack, "permission")
    still_lost = stack.other.get(f"/profiles/{BEN}")
    wait_until(lambda: stack.meta.calls(ADA) == 3, 5, "the witness is asked about")
    wait_until(lambda: is_closed(stack, "permission"), 5, "the gate is closed again")
    stack.redis.hset("pp:g:{default}:permission", "tried", 0)
    stack.meta.person(ADA, profile={"name": "Ada"})
    lapse(stack, "permission")
    probing = stack.other.get(f"/profiles/{EVE}")
    wait_until(lambda: not is_closed(stack, "permission"), 5, "the gate is open")
    back = stack.service.get(f"/profiles/{crowd(30)}")

    assert {code_of(answer) for answer in while_closed} == {"permission_missing"}
    assert calls == 1 + 10 + 1
    assert code_of(still_lost) == code_of(probing) == "permission_missing"
    assert stack.meta.calls(BEN) == stack.meta.calls(EVE) == 0
    assert stored.status_code == back.status_code == 200


def test_one_person_about_whom_meta_fails_closes_nothing(stack) -> None:
    """Polled twenty times by a caller, whatever Meta answers about that person."""
    stack.service.get(f"/profiles/{ADA}")
    for script in (
        {"body": {}},
        {"body": {"id": EVE, "name": "Eve"}},
        {"error": {"code": 4711, "status": 400}},
        {"error": {"code": 2, "status": 500}},
        {"error": {"code": 100, "status": 400, "message": "(#100) ..."}},
    ):
        stack.meta.person(BEN, **script)
        for n in range(20):
            stack.services[n % 2].get(f"/profiles/{BEN}")
            stack.redis.delete(f"pp:n:{{default:{BEN}}}")

    closed = [gate["closed_for"] for gate in stats(stack)["gates"].values()]
    assert closed == [0] * 4
    assert stack.meta.calls(BEN) >= 100
    assert stack.other.get(f"/profiles/{crowd(1)}").status_code == 200


def test_erased_witness_leaves_no_trace(stack) -> None:
    """Nor does a person in a row of those whom Meta does not show, or fails about."""
    stack.meta.person(BEN, error={"code": 2, "status": 500})
    stack.meta.person(EVE, error=NOT_SHOWN)
    for igsid in (ADA, EVE, BEN):
        stack.service.get(f"/profiles/{igsid}")
    before = traces(stack.redis, ADA)
    rows = [f"pp:d:{{default}}:{row}" for row in ("not_shown", "failed")]
    marks = [stack.redis.scard(row) for row in rows]

    receipts = {
        igsid: stack.other.request("DELETE", f"/admin/profiles/{igsid}").json()
        for igsid in (ADA, BEN, EVE)
    }

    found = {
        igsid: [name for name in ("witness", "row") if receipt["was_there"][name]]
        for igsid, receipt in receipts.items()
    }
    assert WITNESSES in before
    assert marks == [1, 1]
    assert found == {ADA: ["witness"], BEN: ["row"], EVE: ["row"]}
    assert not any(traces(stack.redis, igsid) for igsid in (ADA, BEN, EVE))
    assert not stack.redis.exists(*rows)
