"""Promise 6: no output contains a secret, whatever fails."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
from pathlib import Path

import redis

from proxy.embedded import engine
from tests.end_to_end.test_bad_replies import BAD
from tests.end_to_end.test_recorded_replies import PLAYED, play
from tests.helpers.processes import (
    APP_SECRET,
    BIN,
    PAGE_TOKEN,
    VERIFY_TOKEN,
    WEBHOOK_SECRET,
    Service,
    SimulatedMeta,
    a_webhook,
    crowd,
    open_gates,
    post_webhook,
)

PROOF = hmac.new(APP_SECRET.encode(), PAGE_TOKEN.encode(), hashlib.sha256).hexdigest()
API_KEY = "pp_canarykey0123456789"
LINK_SECRET = "canarylinksecret0123456789"


def test_no_output_contains_a_secret_while_everything_fails(tmp_path: Path) -> None:
    """Checks answers, logs at DEBUG, command lines, and each key and value stored."""
    keys = tmp_path / "api_keys"
    digest = hashlib.sha256(API_KEY.encode()).hexdigest()
    keys.write_text(f"canary read,admin {digest}\n")
    bearer = {"Authorization": f"Bearer {API_KEY}"}
    outputs: list[str] = []
    meta = SimulatedMeta(f"--app-secret={APP_SECRET}")
    with engine.start() as store, redis.Redis.from_url(store.url) as client:
        service = Service(
            PAGE_TOKEN=PAGE_TOKEN,
            APP_SECRET=APP_SECRET,
            API_KEYS_FILE=str(keys),
            WEBHOOK_VERIFY_TOKEN=VERIFY_TOKEN,
            WEBHOOK_SECRETS=WEBHOOK_SECRET,
            PICTURE_LINK_SECRET=LINK_SECRET,
            GRAPH_URL=meta.url,
            GRAPH_TIMEOUT="0.5s",
            STORE_URL=store.url,
            WORKERS="1",
            LOG_LEVEL="debug",
            ACCESS_LOG="1",
        )

        def note(answer) -> None:
            outputs.append(f"{answer.status_code} {answer.headers} {answer.text}")

        def get(path: str, **headers: str) -> None:
            note(service.get(path, headers=bearer | headers))

        try:
            for number, (script, _) in enumerate(BAD.values()):
                meta.person(crowd(number), **script)
                get(f"/profiles/{crowd(number)}")
                open_gates(client)
            for number, reply in enumerate(PLAYED.values(), start=100):
                play(meta, crowd(number), reply)
                get(f"/profiles/{crowd(number)}")
                open_gates(client)
            for path in ("/profiles/1", "/profiles/x"):
                get(f"{path}/picture?expires=1&signature={'0' * 64}")
            get("/profiles/x", Authorization=f"Bearer {API_KEY}x")
            get(f"/profiles/1?access_token={PAGE_TOKEN}")
            for key in (API_KEY, f"{API_KEY}x"):
                for path in (crowd(100), crowd(101), "me", "", f"{crowd(1)}/picture"):
                    note(service.get(f"/v25.0/{path}?access_token={key}&fields=x"))
                    note(service.get(f"/v25.0/{path}?access_token={key}"))
            note(service.request("POST", f"/v25.0/1?access_token={API_KEY}"))
            get(f"/admin/profiles/{crowd(100)}")
            note(service.request("POST", "/admin/flush", headers=bearer, json={}))
            get(f"/webhooks/instagram?hub.mode=x&hub.verify_token={VERIFY_TOKEN}")
            note(post_webhook(service, a_webhook(crowd(100))))
            note(post_webhook(service, b"{", APP_SECRET))
            note(post_webhook(service, a_webhook(crowd(101)), "another"))
            outputs.append(everything_in(client))
            meta.order("token", alive=False)
            get(f"/profiles/{crowd(900)}")
            get(f"/v25.0/{crowd(900)}?access_token={API_KEY}")
            store.close()
            note(post_webhook(service, a_webhook(crowd(900))))
            get(f"/profiles/{crowd(901)}")
            note(
                service.request(
                    "DELETE", f"/admin/profiles/{crowd(901)}", headers=bearer
                )
            )
            meta.close()
            get(f"/profiles/{crowd(902)}")
            get("/readyz")
            get("/metrics")
            outputs.append(service.log())
            command = Path(f"/proc/{service.process.pid}/cmdline")
            outputs.append(command.read_text() if command.exists() else "")
        finally:
            service.stop()
    everything = "\n".join(outputs)

    for secret in (
        *(PAGE_TOKEN, APP_SECRET, API_KEY, PROOF),
        *(VERIFY_TOKEN, WEBHOOK_SECRET, LINK_SECRET),
    ):
        assert secret not in everything
    assert crowd(900) not in outputs[-2]
    assert "profile_proxy_answers_total" in outputs[-3]
    assert "asked Meta" in everything
    assert "Traceback" not in everything


def everything_in(client: redis.Redis) -> str:
    """Return all keys and values of the store."""
    read = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"none": lambda key: None,  # It has expired since the scan.
    }
    rows = [f"{key!r}={read[client.type(key)](key)!r}" for key in client.scan_iter()]
    return "\n".join(rows)


def test_invalid_settings_are_reported_without_their_values() -> None:
    """The operator learns what to mend, and the terminal shows no secret."""
    run = subprocess.run(
        [BIN / "profile-proxy", "run"],
        env={
            "PATH": "/usr/bin:/bin",
            "PROXY_PAGE_TOKEN": f"{PAGE_TOKEN} with a space",
            "PROXY_APP_SECRET": f"{APP_SECRET}\u00e9",
            "PROXY_STORE_URL": "redis://:hunter2@host:port/0",
        },
        capture_output=True,
        text=True,
    )

    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 3
    for secret in (PAGE_TOKEN, APP_SECRET, "hunter2"):
        assert secret not in run.stdout + run.stderr


def test_config_command_masks_secrets() -> None:
    """It shows that they are set, and their source."""
    run = subprocess.run(
        [BIN / "profile-proxy", "config"],
        env={
            "PATH": "/usr/bin:/bin",
            "PROXY_PAGE_TOKEN": PAGE_TOKEN,
            "PROXY_STORE_URL": "redis://:hunter2@localhost/0",
        },
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stderr
    assert "PROXY_PAGE_TOKEN" in run.stdout
    assert PAGE_TOKEN not in run.stdout
    assert "hunter2" not in run.stdout
