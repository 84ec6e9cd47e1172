"""Who may call, over real HTTP."""

from __future__ import annotations

import time

import pytest

from tests.helpers.processes import ADA, Service, new_key


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_opens_what_its_scopes_say(stack, guarded) -> None:
    """admin does not imply read, nor read admin."""
    profile, admin = f"/profiles/{ADA}", f"/admin/profiles/{ADA}"

    opened = {
        (name, path.split("/")[1]): guarded.service.get(
            path, headers=bearing(getattr(guarded, name))
        ).status_code
        for name in ("inbox", "ops", "both")
        for path in (profile, admin)
    }

    assert opened == {
        ("inbox", "profiles"): 200,
        ("inbox", "admin"): 403,
        ("ops", "profiles"): 403,
        ("ops", "admin"): 200,
        ("both", "profiles"): 200,
        ("both", "admin"): 200,
    }


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer pp_unknown"},
        {"Authorization": "Basic aW5ib3g6eA=="},
        {"Authorization": "Bearer \xe9\xe8"},
    ],
)
def test_without_a_known_key_there_is_nothing(stack, guarded, headers) -> None:
    """401 with what to send; nobody is asked."""
    answer = guarded.service.get(f"/profiles/{ADA}", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "unknown_key")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert stack.meta.calls() == 0


def test_a_key_in_the_query_is_not_taken(stack, guarded) -> None:
    """Queries end up in logs."""
    answer = guarded.service.get(f"/profiles/{ADA}?access_token={guarded.inbox}")

    assert answer.status_code == 401


def test_the_probes_need_no_key(stack, guarded) -> None:
    """A load balancer has none."""
    paths = ("/healthz", "/readyz", "/openapi.yaml")

    assert {guarded.service.get(p).status_code for p in paths} == {200}


def test_a_key_can_be_rotated_without_a_restart(stack, guarded) -> None:
    """Two lines of one name overlap; a bad line keeps the last good keys."""
    fresh, line = new_key("inbox", "read")
    good = guarded.file.read_text()
    profile = f"/profiles/{ADA}"

    def opens(key: str) -> bool:
        return bool(guarded.service.get(profile, headers=bearing(key)).ok)

    def soon(what) -> bool:
        deadline = time.monotonic() + 6
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return True

    try:
        guarded.file.write_text(good + line + "\n")
        assert soon(lambda: opens(fresh))
        assert opens(guarded.inbox)

        guarded.file.write_text(good + "what is this\n")
        assert soon(lambda: guarded.service.get("/readyz").json()["reasons"])
        assert opens(fresh)
        assert "line 5" in guarded.service.log()
        assert "what is this" not in guarded.service.log()

        guarded.file.unlink()
        assert opens(guarded.inbox)
        assert guarded.service.get(profile).status_code == 401
    finally:
        guarded.file.write_text(good)
        assert soon(lambda: not guarded.service.get("/readyz").json()["reasons"])


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"Via": "1.1 somewhere"},
    ],
)
def test_without_keys_only_this_machine_is_served(stack, headers) -> None:
    """A page in a browser, or a proxy in between, is not this machine."""
    answer = stack.service.get(f"/profiles/{ADA}", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (403, "not_local")
    assert stack.meta.calls() == 0


def test_anybody_may_read_if_the_operator_says_so(stack) -> None:
    """Read, from anywhere; and nothing else."""
    service = Service(**stack.settings, ALLOW_ANONYMOUS="1")
    try:
        host = {"Host": "proxy.internal", "X-Forwarded-For": "10.0.0.1"}
        read = service.get(f"/profiles/{ADA}", headers=host)
        admin = service.get(f"/admin/profiles/{ADA}")
    finally:
        service.stop()

    assert read.status_code == 200
    assert (admin.status_code, admin.json()["code"]) == (403, "scope_missing")
