"""API keys and scopes, over real HTTP."""

from __future__ import annotations

import pytest

from tests.helpers.processes import ADA, Service, new_key, wait_until


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_key_opens_only_the_routes_of_its_scopes(stack, guarded) -> None:
    """admin does not imply read, nor read admin."""
    profile, admin = f"/profiles/{ADA}", f"/admin/profiles/{ADA}"

    statuses = {
        (name, path.split("/")[1]): guarded.service.get(
            path, headers=bearing(getattr(guarded, name))
        ).status_code
        for name in ("inbox", "ops", "both")
        for path in (profile, admin)
    }

    assert statuses == {
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
def test_unknown_key_is_401(stack, guarded, headers) -> None:
    """The answer says how to authenticate, and Meta is not asked."""
    answer = guarded.service.get(f"/profiles/{ADA}", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "unknown_key")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert stack.meta.calls() == 0


def test_key_in_the_query_is_ignored(stack, guarded) -> None:
    """Queries end up in logs."""
    answer = guarded.service.get(f"/profiles/{ADA}?access_token={guarded.inbox}")

    assert answer.status_code == 401


def test_probes_need_no_key(stack, guarded) -> None:
    """A load balancer has none."""
    paths = ("/healthz", "/readyz", "/openapi.yaml")

    assert {guarded.service.get(p).status_code for p in paths} == {200}


def test_key_can_be_rotated_without_a_restart(stack, guarded) -> None:
    """Two keys of one name work side by side; an invalid file keeps the last keys."""
    new, line = new_key("inbox", "read")
    valid = guarded.file.read_text()
    profile = f"/profiles/{ADA}"

    def opens(key: str) -> bool:
        return bool(guarded.service.get(profile, headers=bearing(key)).ok)

    def reasons() -> list[str]:
        return list(guarded.service.get("/readyz").json()["reasons"])

    try:
        guarded.file.write_text(valid + line + "\n")
        wait_until(lambda: opens(new), 6, "the new key is read")
        assert opens(guarded.inbox)

        guarded.file.write_text(valid + "what is this\n")
        wait_until(lambda: reasons() != [], 6, "the invalid line is reported")
        assert opens(new)
        assert "line 5" in guarded.service.log()
        assert "what is this" not in guarded.service.log()

        guarded.file.unlink()
        assert opens(guarded.inbox)
        assert guarded.service.get(profile).status_code == 401
    finally:
        guarded.file.write_text(valid)
        wait_until(lambda: reasons() == [], 6, "the file is valid again")


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
def test_service_without_keys_serves_only_its_own_machine(stack, headers) -> None:
    """It refuses requests of a web page in a browser, and of a proxy in between."""
    answer = stack.service.get(f"/profiles/{ADA}", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (403, "not_local")
    assert stack.meta.calls() == 0


def test_allow_anonymous_permits_reading_from_anywhere(stack) -> None:
    """And nothing else."""
    service = Service(**stack.settings, ALLOW_ANONYMOUS="1")
    try:
        host = {"Host": "proxy.internal", "X-Forwarded-For": "10.0.0.1"}
        read = service.get(f"/profiles/{ADA}", headers=host)
        admin = service.get(f"/admin/profiles/{ADA}")
    finally:
        service.stop()

    assert read.status_code == 200
    assert (admin.status_code, admin.json()["code"]) == (403, "scope_missing")
