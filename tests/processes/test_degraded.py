"""Each reason of a degradation: in readyz, in the log, and as a metric."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import (
    ADA,
    PAGE_TOKEN,
    Service,
    crowd,
    free_port,
    open_gates,
    wait_until,
)
from tests.helpers.prometheus import total
from tests.helpers.redis_servers import RedisServer, client_of
from tests.helpers.stack import Stack, start_stack

GOOD = {"maxmemory-policy": "allkeys-lfu"}

FULL_FOR = 5.0
"""Seconds for which a store has no memory."""

REFUSED = {"error": {"code": 10, "status": 403}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service of two workers, with a second Page whose Graph cannot be reached."""
    pages = tmp_path_factory.mktemp("pages") / "pages.toml"
    url = f"http://127.0.0.1:{free_port()}"
    pages.write_text(f'[pages.shop]\ntoken = "EAASHOP"\nurl = "{url}"\n')
    settings = {"WORKERS": "2", "TOKEN_RETRY": "1s", "PAGES_FILE": str(pages)}
    with (
        RedisServer("tcp", settings=GOOD) as store,
        start_stack(store.url, settings=settings) as stack,
    ):
        yield stack


@pytest.fixture
def stack(running: Stack) -> Iterator[Stack]:
    running.redis.config_set("maxmemory", 0)
    running.redis.config_set("maxmemory-policy", "allkeys-lfu")
    running.reset()
    wait_until(lambda: reasons(running.service) == [], 20, "it is well")
    wait_until(lambda: degraded(running.service) == 0, 5, "its metric says so")
    yield running
    open_gates(running.redis)
    running.redis.config_set("maxmemory", 0)


def reasons(service: Service) -> list[str]:
    answer = service.get("/readyz")
    assert answer.status_code == 200
    return list(answer.json()["reasons"])


def degraded(service: Service, **labels: str) -> float | None:
    return total(service.get("/metrics").text, "degraded", **labels)


def lines(service: Service, message: str) -> list[dict[str, Any]]:
    read = [json.loads(each) for each in service.log().splitlines() if each[0] == "{"]
    return [line for line in read if line["message"] == message]


def test_every_reason_has_a_series_with_0_from_the_start(stack) -> None:
    """An alert on an absent series never fires; those of a Page's name too."""
    for reason in ("store_full", "token_rejected", "token_rejected:shop", "clock_skew"):
        assert degraded(stack.service, reason=reason) == 0


def test_dead_token_is_a_reason_until_a_call_succeeds(stack) -> None:
    """Also when its gate has lapsed; two workers log one line, readyz asked or not."""
    before = len(lines(stack.service, "degraded"))
    stack.meta.order("token", alive=False)
    assert stack.service.get(f"/profiles/{ADA}").status_code == 502

    wait_until(
        lambda: degraded(stack.service, reason="token_rejected") == 1, 5, "the metric"
    )
    wait_until(lambda: len(lines(stack.service, "degraded")) > before, 5, "the line")
    time.sleep(1.2)  # TOKEN_RETRY is over, and no caller has asked since.
    assert reasons(stack.service) == ["token_rejected"]
    assert degraded(stack.service, reason="token_rejected:shop") == 0
    [line] = lines(stack.service, "degraded")[before:]
    assert (line["level"], line["reasons"]) == ("warning", ["token_rejected"])

    stack.meta.order("token", alive=True)
    wait_until(
        lambda: stack.service.get(f"/profiles/{ADA}").status_code == 200,
        10,
        "it is",
    )
    assert reasons(stack.service) == []
    wait_until(lambda: degraded(stack.service) == 0, 5, "the metric")


def test_lost_permission_is_a_reason(stack) -> None:
    """Many people are answered with a code about the app."""
    for number in range(25):
        stack.meta.person(crowd(number), **REFUSED)
        stack.service.get(f"/profiles/{crowd(number)}")

    assert "permission" in reasons(stack.service)
    assert degraded(stack.service, reason="permission") == 1


def test_codes_about_the_app_are_a_reason_while_meta_shows_others(stack) -> None:
    """A tester is shown to an app that has lost Advanced Access: the gate is open."""
    assert stack.service.get(f"/profiles/{ADA}").status_code == 200
    for number in range(11):
        stack.meta.person(crowd(number), **REFUSED)
        stack.service.get(f"/profiles/{crowd(number)}")
    stack.meta.await_calls(ADA, 2)

    assert reasons(stack.service) == ["lacks_permission"]
    assert degraded(stack.service, reason="lacks_permission") == 1
    assert stack.service.get(f"/profiles/{crowd(30)}").status_code == 200
    assert reasons(stack.service) == []


def test_unreachable_graph_of_a_named_page_is_a_reason_with_its_name(stack) -> None:
    """The default Page's is reached."""
    for number in range(6):
        path = f"/pages/shop/profiles/{crowd(number)}"
        assert stack.service.get(path).status_code == 502

    assert reasons(stack.service) == ["graph_unavailable:shop"]
    wait_until(
        lambda: degraded(stack.service, reason="graph_unavailable:shop") == 1, 5, "it"
    )
    assert degraded(stack.service, reason="graph_unavailable") == 0


def test_full_store_is_a_reason_of_its_own_and_does_not_flap(stack) -> None:
    """Some commands succeed meanwhile; the log has one line for each worker."""
    stack.redis.config_set("maxmemory-policy", "noeviction")
    stack.redis.config_set("maxmemory", 1)
    seen = []
    ends_at = time.monotonic() + FULL_FOR
    number = 0
    while time.monotonic() < ends_at:
        number += 1
        stack.service.get(f"/profiles/{crowd(number)}")
        stack.service.request("DELETE", f"/admin/profiles/{crowd(number)}")
        seen.append(set(reasons(stack.service)))
        time.sleep(0.1)

    assert all("store_full" in each for each in seen)
    assert not any("store_unavailable" in each for each in seen)
    assert degraded(stack.service, reason="store_full") == 1
    full = lines(stack.service, "store full")
    assert 1 <= len(full) <= 2
    assert full[0]["said"] == "command not allowed when used memory > 'maxmemory'."
    assert not lines(stack.service, "store back")

    stack.redis.config_set("maxmemory", 0)
    stack.redis.config_set("maxmemory-policy", "allkeys-lfu")
    wait_until(lambda: reasons(stack.service) == [], 25, "it has room again")
    wait_until(lambda: bool(lines(stack.service, "store back")), 5, "it is logged")
    assert not lines(stack.service, "store away")


@pytest.mark.parametrize(
    ("user", "forbidden", "reason"),
    [
        ("", "", "store_auth"),
        ("guest:pw@", "-@scripting", "store_scripts"),
        ("guest:pw@", "-time", "store_auth"),
    ],
)
def test_store_that_refuses_us_is_a_reason_and_an_error(
    user: str, forbidden: str, reason: str
) -> None:
    """A missing password, and an ACL that forbids scripts, or a command in them.

    None of it heals by itself, and none flaps, although other calls succeed.
    """
    with ExitStack() as ending:
        store = ending.enter_context(
            RedisServer("tcp", password="secret-pw", settings=GOOD)
        )
        theirs = ending.enter_context(client_of(store.url))
        theirs.execute_command(
            "ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@all", *forbidden.split()
        )
        url = f"redis://{user}127.0.0.1:{store.port}/0"
        service = Service(PAGE_TOKEN=PAGE_TOKEN, STORE_URL=url, WORKERS="1")
        ending.callback(service.stop)
        service.get(f"/profiles/{ADA}")

        assert reasons(service) == [reason]
        assert degraded(service, reason=reason) == 1
        away = lines(service, "store away")
        assert [line["level"] for line in away] == ["error"]
        assert away[0]["reason"] == reason
        assert "secret-pw" not in service.log()


def test_scrape_shows_a_bad_file_of_any_worker(tmp_path: Path) -> None:
    """The 2 s look of each worker sets the metric."""
    token = tmp_path / "page_token"
    token.write_text(PAGE_TOKEN)
    with RedisServer("tcp", settings=GOOD) as store:
        service = Service(PAGE_TOKEN_FILE=str(token), STORE_URL=store.url, WORKERS="2")
        try:
            token.unlink()
            wait_until(
                lambda: degraded(service, reason="page_token_file_bad") == 1, 5, "it"
            )
            assert reasons(service) == ["page_token_file_bad"]
        finally:
            service.stop()
