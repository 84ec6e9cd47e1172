"""The routes that Meta calls: the handshake, and updates about messages."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest

from proxy.app import create_app
from proxy.config.settings import Settings
from proxy.storage.near_cache import TRUSTED_FOR
from tests.helpers.builders import ADA, a_profile, a_refusal
from tests.helpers.fakes import FakeClock, FakeGraph, FakeTaskQueue
from tests.helpers.prometheus import samples

TOKEN, SECRET, APP_SECRET = "verify-me", "s3cret", "app,secret"
PATH = "/webhooks/instagram"
SETTINGS = {
    "PROXY_PAGE_TOKEN": "EAACANARY",
    "PROXY_WEBHOOK_VERIFY_TOKEN": TOKEN,
    "PROXY_WEBHOOK_SECRETS": f"another, {SECRET}",
    "PROXY_APP_SECRET": APP_SECRET,
}


@pytest.fixture
def naps() -> list[float]:
    """The seconds of every wait for local caches to expire."""
    return []


@pytest.fixture
def new_client(store, naps):
    """Builds the service with more or other settings."""
    background = FakeTaskQueue()

    def build(**more: str):
        graph = FakeGraph()
        given = SETTINGS | {f"PROXY_{name}": value for name, value in more.items()}
        app = create_app(
            Settings.from_env(given),
            client=store,
            graph=graph,
            submit=background.submit,
            now=FakeClock(),
            jitter=lambda: 0.0,
            sleep=naps.append,
        )
        client = app.test_client()
        client.graph, client.background = graph, background
        return client

    return build


@pytest.fixture
def client(new_client):
    return new_client()


def a_body(*senders: str, kind: str = "message") -> bytes:
    events = [{"sender": {"id": sender}, kind: {"mid": "m" * 80}} for sender in senders]
    entry = {"id": "17841400000000000", "time": 1, "messaging": events}
    return json.dumps({"object": "instagram", "entry": [entry]}).encode()


def signature_of(body: bytes, secret: str = SECRET) -> str:
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def post(client, body: bytes, *, secret: str = SECRET, **headers: str):
    signed = {"X-Hub-Signature-256": signature_of(body, secret)}
    return client.post(PATH, data=body, headers=signed | headers)


def counted(client) -> dict[tuple[str, ...], float]:
    """Return the nonzero counters of webhooks, by labels."""
    text = client.get("/metrics").text
    return {
        tuple(sample.labels.values()): sample.value
        for sample in samples(text)
        if "webhook" in sample.name and sample.value
    }


# The handshake.


def verify(client, **changes: str):
    asked = {
        "hub.mode": "subscribe",
        "hub.verify_token": TOKEN,
        "hub.challenge": "1158201444",
    }
    return client.get(PATH, query_string=asked | changes)


def test_handshake_returns_the_challenge(client) -> None:
    """As plain text, which no browser would run."""
    answer = verify(client)

    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "changes",
    [
        {"hub.verify_token": TOKEN + "x"},
        {"hub.verify_token": ""},
        {"hub.verify_token": "é"},
        {"hub.mode": "unsubscribe"},
        {"hub.mode": ""},
    ],
    ids=ascii,
)
def test_handshake_with_a_wrong_token_is_403(client, changes) -> None:
    """The challenge is not returned."""
    answer = verify(client, **changes)

    assert answer.status_code == 403
    assert answer.json["code"] == "invalid_verify_token"
    assert "1158201444" not in answer.text


@pytest.mark.parametrize("challenge", ["", "1" * 257, "1 2", "1\n2", "é"], ids=ascii)
def test_handshake_with_an_invalid_challenge_is_400(client, challenge) -> None:
    """A challenge is one word of bounded length."""
    answer = verify(client, **{"hub.challenge": challenge})

    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")


# Updates.


@pytest.mark.parametrize("kind", ["message", "postback"])
def test_message_deletes_the_refusal_about_its_sender(client, kind) -> None:
    """Before the 200 is sent; then Meta is asked again."""
    client.graph.outcomes[ADA] = a_refusal()
    client.get(f"/profiles/{ADA}")
    client.graph.outcomes[ADA] = a_profile()

    answer = post(client, a_body(ADA, kind=kind))

    assert answer.status_code == 200
    assert answer.json == {"updates": 1, "writers": 1}
    assert client.get(f"/profiles/{ADA}").status_code == 200
    assert client.graph.calls == 2


def test_message_keeps_the_profile_of_its_sender(client, store, naps) -> None:
    """By far the most common case; it does not wait for local caches."""
    client.graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}")
    store.pexpire(f"pp:e:{{default:{ADA}}}", 1_800_000)

    post(client, a_body(ADA))

    assert naps == []
    client.get(f"/profiles/{ADA}")
    assert client.graph.calls == 1


def test_webhook_waits_out_local_caches_once_for_all_senders(client, naps) -> None:
    """Other processes may have local copies; all were invalidated at the same time."""
    post(client, a_body(ADA, "1254001234567891", "1254001234567892"))

    assert naps == [TRUSTED_FOR]


def test_webhook_waits_out_a_refusal_that_was_just_replaced(client, naps) -> None:
    """A forced fetch may have replaced it just before the message was reported."""
    client.graph.outcomes[ADA] = a_refusal()
    client.get(f"/profiles/{ADA}")
    client.graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}", headers={"Cache-Control": "no-cache"})

    post(client, a_body(ADA))

    assert naps == [TRUSTED_FOR]


def test_update_without_consent_deletes_nothing(client, naps) -> None:
    """A refusal stays valid."""
    client.graph.outcomes[ADA] = a_refusal()
    client.get(f"/profiles/{ADA}")

    answer = post(client, a_body(ADA, kind="read"))

    assert answer.json == {"updates": 1, "writers": 0}
    assert client.get(f"/profiles/{ADA}").status_code == 403
    assert (client.graph.calls, naps) == (1, [])


@pytest.mark.parametrize("secret", ["another", SECRET, APP_SECRET])
def test_webhook_may_be_signed_with_any_secret(client, secret) -> None:
    """The listed ones and the app's, which may contain a comma."""
    assert post(client, a_body(ADA), secret=secret).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": signature_of(b"{}", SECRET)},
        {"X-Hub-Signature-256": signature_of(a_body(ADA), "secret")},
        {"X-Hub-Signature-256": signature_of(a_body(ADA), "")},
        {"X-Hub-Signature-256": signature_of(a_body(ADA), "app")},
        {"X-Hub-Signature": signature_of(a_body(ADA))},
    ],
    ids=str,
)
def test_unsigned_webhook_is_403_and_not_parsed(client, store, headers) -> None:
    """Nothing is marked or deleted."""
    answer = client.post(PATH, data=a_body(ADA), headers=headers)

    assert (answer.status_code, answer.json["code"]) == (403, "invalid_signature")
    assert store.keys("pp:w:*") == []
    assert counted(client) == {("refused",): 1}


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'{"object":"page"}'], ids=len)
def test_unreadable_webhook_is_200(client, body) -> None:
    """Meta has signed it, and would resend it for 36 hours."""
    answer = post(client, body)

    assert (answer.status_code, answer.json) == (200, {"updates": 0, "writers": 0})
    assert counted(client) == {("unreadable",): 1}


def test_updates_are_counted_by_kind_and_result(client) -> None:
    """So are the webhooks that contained them."""
    post(client, a_body(ADA, "nobody"))
    post(client, a_body(ADA, kind="reaction"))

    assert counted(client) == {
        ("accepted",): 2,
        ("message", "written"): 1,
        ("message", "unreadable"): 1,
        ("reaction", "ignored"): 1,
    }


def test_webhook_is_503_while_the_store_is_down(client, server) -> None:
    """Nothing was deleted, so Meta must resend it."""
    server.connected = False

    answer = post(client, a_body(ADA))

    assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
    assert answer.headers["Retry-After"] == "1"
    assert post(client, a_body(ADA, kind="read")).status_code == 200
    server.connected = True
    assert counted(client) == {
        ("failed",): 1,
        ("accepted",): 1,
        ("seen", "ignored"): 1,
    }


def test_webhook_prefetch_fetches_the_sender(new_client) -> None:
    """Before a caller asks for them."""
    client = new_client(WEBHOOK_PREFETCH="1")
    client.graph.outcomes[ADA] = a_profile()

    post(client, a_body(ADA, ADA))
    client.background.run()

    assert client.graph.asked == [ADA]
    assert "; hit; " in client.get(f"/profiles/{ADA}").headers["Cache-Status"]


# Access.


def test_webhooks_need_no_key_and_no_local_address(new_client, tmp_path) -> None:
    """Meta has no key of ours, and calls through a gateway."""
    keys = tmp_path / "keys"
    keys.write_text(f"inbox read {'0' * 64}\n")
    client = new_client(API_KEYS_FILE=str(keys))
    from_outside = {"Host": "hooks.example.com", "X-Forwarded-For": "173.252.0.1"}

    assert post(client, a_body(ADA), **from_outside).status_code == 200
    assert verify(client).status_code == 200
    assert client.get(f"/profiles/{ADA}").status_code == 401


def test_webhooks_without_a_verify_token_are_404(new_client) -> None:
    """Even with an app secret, which has other uses."""
    client = new_client(WEBHOOK_VERIFY_TOKEN="", WEBHOOK_SECRETS="")

    for answer in (
        verify(client),
        post(client, a_body(ADA), secret=APP_SECRET),
        client.put(PATH),
    ):
        assert (answer.status_code, answer.json["code"]) == (404, "unknown_path")


def test_webhook_secrets_may_be_in_files(new_client, tmp_path: Path) -> None:
    """As all other secrets."""
    token, secrets = tmp_path / "token", tmp_path / "secrets"
    token.write_text("from-a-file\n")
    secrets.write_text("old,new\n")
    client = new_client(
        WEBHOOK_VERIFY_TOKEN="",
        WEBHOOK_VERIFY_TOKEN_FILE=str(token),
        WEBHOOK_SECRETS="",
        WEBHOOK_SECRETS_FILE=str(secrets),
        APP_SECRET="",
    )

    assert verify(client, **{"hub.verify_token": "from-a-file"}).status_code == 200
    assert post(client, a_body(ADA), secret="new").status_code == 200
    assert post(client, a_body(ADA), secret=APP_SECRET).status_code == 403


# Bodies.


def test_webhook_of_1000_updates_is_accepted(client) -> None:
    """Meta's maximum in one body."""
    body = a_body(*(f"1254002{number:09d}" for number in range(1000)))

    assert 64 * 1024 < len(body) < 1024 * 1024
    assert post(client, body).json == {"updates": 1000, "writers": 1000}


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 10 * 1024 * 1024])
def test_webhook_over_1_mib_is_413(client, size) -> None:
    """Its Content-Length is enough."""
    answer = post(client, b"x" * size)

    assert (answer.status_code, answer.json["code"]) == (413, "body_too_large")
    assert str(1024 * 1024) in answer.json["detail"]


def test_other_bodies_over_64_kib_are_413(client) -> None:
    """Only Meta's bodies may be longer."""
    answer = client.post("/admin/flush", data=b"x" * (64 * 1024 + 1))

    assert answer.status_code == 413
