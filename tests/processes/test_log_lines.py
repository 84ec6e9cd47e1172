"""The log names who asked: the request, the API key and the process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from proxy.embedded import engine
from tests.helpers.processes import (
    ADA,
    VERIFY_TOKEN,
    WEBHOOK_SECRET,
    Service,
    a_webhook,
    crowd,
    new_key,
    post_webhook,
    wait_until,
)
from tests.helpers.prometheus import samples, total
from tests.helpers.stack import Stack, start_stack

KEYS = {
    name: new_key(name, "read,admin" if name == "inbox" else "read")
    for name in ("inbox", "crm")
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    file: Path = tmp_path_factory.mktemp("keys") / "api_keys"
    file.write_text("".join(f"{line}\n" for _, line in KEYS.values()))
    settings = {
        "API_KEYS_FILE": str(file),
        "ACCESS_LOG": "1",
        "LOG_LEVEL": "debug",
        "PROFILE_TTL": "1s",
        "WEBHOOK_VERIFY_TOKEN": VERIFY_TOKEN,
        "WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "WEBHOOK_PREFETCH": "1",
    }
    with (
        engine.start() as store,
        start_stack(store.url, settings=settings) as stack,
    ):
        yield stack


@pytest.fixture
def stack(running: Stack) -> Stack:
    running.reset()
    return running


def ask(service: Service, key: str, path: str, request_id: str) -> requests.Response:
    secret, _ = KEYS[key]
    headers = {"Authorization": f"Bearer {secret}", "X-Request-ID": request_id}
    return service.get(path, headers=headers)


def lines(service: Service, message: str, **fields: object) -> list[dict[str, Any]]:
    """The lines of the log with this message and these fields."""
    parsed = [
        json.loads(line) for line in service.log().splitlines() if line.startswith("{")
    ]
    return [
        line
        for line in parsed
        if line["message"] == message and fields.items() <= line.items()
    ]


def test_call_to_meta_is_logged_with_the_request_and_the_key(stack) -> None:
    """Of the caller who led it, in a batch too, whose calls other threads make."""
    stack.meta.person(crowd(1), error={"code": 100, "subcode": 33, "status": 400})

    ask(stack.service, "crm", f"/profiles/{crowd(1)}", "wrong-1")
    ids = ",".join(crowd(n) for n in range(2, 12))
    ask(stack.service, "inbox", f"/profiles?ids={ids}", "page-1")

    [wrong] = lines(stack.service, "asked Meta", request_id="wrong-1")
    assert (wrong["key"], wrong["result"]) == ("crm", "unavailable")
    assert wrong["pid"] in stack.service.workers()
    assert wrong["person"] == f"...{crowd(1)[-4:]}"
    batch = lines(stack.service, "asked Meta", request_id="page-1")
    assert [line["key"] for line in batch] == ["inbox"] * 10


def test_background_work_is_logged_with_its_cause_in_place_of_a_key(stack) -> None:
    """And with the request that gave rise to it."""
    ask(stack.service, "inbox", f"/profiles/{ADA}", "first")
    stack.meta.person(ADA, error={"code": 1, "status": 500})
    wait_until(
        lambda: "hit; ttl=-" in status(stack, "stale"), 10, "the profile is stale"
    )
    wait_until(
        lambda: bool(lines(stack.service, "refresh failed")), 10, "a refresh failed"
    )
    body = a_webhook(crowd(20))
    post_webhook(stack.service, body)
    wait_until(lambda: stack.meta.calls(crowd(20)) == 1, 10, "a prefetch")
    person = f"...{crowd(20)[-4:]}"
    wait_until(
        lambda: bool(lines(stack.service, "asked Meta", person=person)), 5, "its line"
    )

    [failed, *_] = lines(stack.service, "refresh failed")
    assert (failed["key"], failed["request_id"]) == ("(refresh)", "stale")
    [prefetch] = lines(stack.service, "asked Meta", person=person)
    assert prefetch["key"] == "(prefetch)"
    assert len(prefetch["request_id"]) == 32


def status(stack: Stack, request_id: str) -> str:
    answer = ask(stack.service, "inbox", f"/profiles/{ADA}", request_id)
    return answer.headers["Cache-Status"]


def test_request_is_logged_with_the_key_on_the_fast_path_too(stack) -> None:
    """A miss is answered by the view, and a hit before it."""
    for request_id in ("miss", "hit"):
        ask(stack.service, "crm", f"/profiles/{crowd(30)}", request_id)

    logged = [
        lines(stack.service, "request", request_id=each)[0] for each in ("miss", "hit")
    ]
    assert [line["key"] for line in logged] == ["crm", "crm"]
    assert "hit" in logged[1]["cache_status"]
    assert all(line["pid"] in stack.service.workers() for line in logged)


def test_callers_that_are_refused_are_logged_once_a_second(stack) -> None:
    """An unknown key with the address of the service, and a wrong scope by its key.

    However often one comes, it does not hide the other.
    """

    def unknown() -> list[dict[str, Any]]:
        path, headers = f"/v25.0/{ADA}", {"Authorization": "Bearer no"}
        assert stack.service.get(path, headers=headers).status_code == 401
        return lines(stack.service, "caller refused", code="unknown_key")

    for _ in range(50):
        first = unknown()
    assert ask(stack.service, "crm", "/admin/stats", "scope").status_code == 403

    [scope] = lines(stack.service, "caller refused", code="scope_missing")
    assert (scope["key"], scope["request_id"]) == ("crm", "scope")
    assert 1 <= len(first) <= 5
    assert (first[0]["level"], first[0]["address"]) == ("warning", "127.0.0.1")
    assert first[0]["key"] == "-"
    labels = (first[0]["route"], first[0]["page"])
    assert labels == ("/v<version>/<igsid>", "default")
    left_out = 50 - len(first)
    wait_until(
        lambda: sum(line["left_out"] for line in unknown()) >= left_out,
        10,
        "a line counts those without one",
    )
    assert "Bearer" not in stack.service.log()


def test_refused_person_is_no_refused_caller(stack) -> None:
    """Both have the status 403."""
    before = len(lines(stack.service, "caller refused"))
    stack.meta.person(ADA, error={"code": 230, "status": 403})

    answer = ask(stack.service, "crm", f"/profiles/{ADA}", "consent")

    assert answer.json()["code"] == "consent_required"
    assert len(lines(stack.service, "caller refused")) == before


def test_closed_gate_is_logged_with_what_to_do(stack) -> None:
    """In words, and debug says which calls it stops."""
    stack.meta.order("token", alive=False)
    for number in (40, 41):
        ask(stack.service, "inbox", f"/profiles/{crowd(number)}", f"dead-{number}")

    [closed] = lines(stack.service, "gate closed", cause="token_rejected")
    assert "new Page token" in closed["hint"]
    assert (closed["level"], closed["request_id"]) == ("error", "dead-40")
    [stopped] = lines(stack.service, "gate stops a call")
    assert (stopped["level"], stopped["request_id"]) == ("debug", "dead-41")
    assert lines(stack.service, "lease taken", request_id="dead-40")
    assert lines(stack.service, "looked up", request_id="dead-41", source="none")


def test_guilty_caller_is_named_by_metrics_and_stats(stack) -> None:
    """One key asks for people who are there; another asks wrong ids, and forces."""
    names = ("key_calls_total", "key_forced_calls_total", "key_refusals_total")
    before = stack.service.get("/metrics").text
    for number in range(60, 65):
        ask(stack.service, "inbox", f"/profiles/{crowd(number)}", "right")
    for number in range(50, 60):
        stack.meta.person(
            crowd(number), error={"code": 100, "subcode": 33, "status": 400}
        )
        ask(stack.service, "crm", f"/profiles/{crowd(number)}", "wrong")
    secret, _ = KEYS["crm"]
    headers = {"Authorization": f"Bearer {secret}", "Cache-Control": "no-cache"}
    time.sleep(2.1)  # A younger entry would satisfy it.
    stack.service.get(f"/profiles/{crowd(60)}", headers=headers)

    after = stack.service.get("/metrics").text
    grown = {
        (name, key): count(after, name, key=key) - count(before, name, key=key)
        for name in names
        for key in ("crm", "inbox")
    }
    stats = ask(stack.service, "inbox", "/admin/stats", "stats").json()["instance"]
    assert grown == {
        ("key_calls_total", "crm"): 11,
        ("key_calls_total", "inbox"): 5,
        ("key_forced_calls_total", "crm"): 1,
        ("key_forced_calls_total", "inbox"): 0,
        ("key_refusals_total", "crm"): 10,
        ("key_refusals_total", "inbox"): 0,
    }
    assert stats["keys"]["crm"]["refusals"]["unavailable"] >= 10
    assert stats["keys"]["crm"]["calls"] == count(after, "key_calls_total", key="crm")


def count(text: str, name: str, **labels: str) -> float:
    """The sum of the series with these labels, 0 without any."""
    return total(text, name, **labels) or 0


def test_every_request_is_counted_by_route_and_status(stack) -> None:
    """Those of the fast path, and those that are refused."""
    before = stack.service.get("/metrics").text
    for _ in range(4):
        ask(stack.service, "inbox", f"/profiles/{crowd(70)}", "hit")
    ask(stack.service, "inbox", f"/profiles/{crowd(70)}/picture", "picture")
    ask(stack.service, "inbox", f"/profiles?ids={crowd(70)}", "batch")
    ask(stack.service, "inbox", "/profiles/12", "invalid")
    ask(stack.service, "inbox", "/no/such/path", "path")
    ask(stack.service, "crm", f"/admin/profiles/{crowd(70)}", "scope")
    for _ in range(3):
        stack.service.get(f"/profiles/{ADA}")
    ask(stack.service, "inbox", "/pages/nowhere/profiles/12345", "page")

    after = stack.service.get("/metrics").text

    def grown(route: str, status: int, page: str) -> float:
        labels = {"route": route, "status": str(status), "page": page}
        counts = [count(text, "requests_total", **labels) for text in (before, after)]
        return counts[1] - counts[0]

    assert grown("/profiles/<igsid>", 200, "default") == 4
    assert grown("/profiles/<igsid>/picture", 302, "default") == 1
    assert grown("/profiles", 200, "default") == 1
    assert grown("/profiles/<igsid>", 400, "default") == 1
    assert grown("/profiles/<igsid>", 401, "default") == 3
    assert grown("/profiles/<igsid>", 404, "") == 1
    assert grown("/admin/profiles/<igsid>", 403, "") == 1
    assert grown("unknown", 404, "") == 1
    assert "nowhere" not in after
    assert count(after, "request_seconds_count") > 0
    assert count(after, "build_info") == 1
    [memory] = [s for s in samples(after) if s.name == "process_resident_memory_bytes"]
    assert memory.value > 10e6
