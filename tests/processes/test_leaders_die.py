"""Leaders that die or are stopped: their followers are answered in time."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.helpers.processes import ADA, BEN, Service, wait_until


def test_dead_leader_is_replaced_when_its_lease_lapses(stack) -> None:
    """SIGKILL in mid-call costs two calls in all, within a caller's longest wait."""
    victim = Service(**stack.settings)
    stack.meta.person(ADA, wire="hang", times=1)
    with ThreadPoolExecutor(11) as pool:
        try:
            led = pool.submit(victim.get, f"/profiles/{ADA}")
            stack.meta.await_calls(ADA)
            (worker,) = victim.workers()
            started = time.monotonic()
            others = [
                pool.submit(stack.service.get, f"/profiles/{ADA}") for _ in range(10)
            ]
            os.kill(worker, signal.SIGKILL)
            statuses = {other.result().status_code for other in others}
            waited = time.monotonic() - started
            # Another worker has replaced the dead one, on the same port.
            statuses.add(victim.get(f"/profiles/{ADA}").status_code)
            with pytest.raises(requests.ConnectionError):
                led.result()
        finally:
            victim.stop()

    assert statuses == {200}
    assert stack.meta.calls(ADA) == 2
    assert waited < 2 * stack.graph_timeout + 2


def test_leader_whose_lease_has_lapsed_writes_nothing(stack) -> None:
    """SIGSTOP until the lease lapses: its outcome is neither stored nor served."""
    sleeper = Service(**stack.settings)
    stack.meta.person(BEN, profile={"name": "Before"}, wire="hang", times=1)
    with ThreadPoolExecutor(1) as pool:
        try:
            led = pool.submit(sleeper.get, f"/profiles/{BEN}")
            stack.meta.await_calls(BEN)
            (worker,) = sleeper.workers()
            os.kill(worker, signal.SIGSTOP)
            stack.meta.order("release")
            lease = f"pp:l:{{default:{BEN}}}"
            wait_until(
                lambda: not stack.redis.exists(lease), 2 * stack.graph_timeout, "lapsed"
            )
            stack.meta.person(BEN, profile={"name": "After"})
            assert stack.service.get(f"/profiles/{BEN}").json()["name"] == "After"
            os.kill(worker, signal.SIGCONT)
            late = led.result().json()
        finally:
            sleeper.stop()

    assert late.get("name", "After") == "After"
    assert stack.other.get(f"/profiles/{BEN}").json()["name"] == "After"


def test_workers_end_if_their_parent_is_killed(stack) -> None:
    """No process is left to hold the port and answer from old settings."""
    service = Service(**stack.settings | {"WORKERS": "2"})
    workers = service.workers()

    service.process.kill()
    service.process.wait()

    assert len(workers) == 2
    wait_until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers),
        15,
        "the workers have ended",
    )
    service.stop()


def test_second_service_on_the_same_port_does_not_start(stack) -> None:
    """It would take half of the first one's requests, silently."""
    again = Service(
        ready=False, **stack.settings | {"LISTEN": f"127.0.0.1:{stack.service.port}"}
    )

    assert again.process.wait(10) == 2
    assert "PROXY_LISTEN" in again.log()
    assert "in use" in again.log()
    again.stop()
