"""The routes that Meta calls: the handshake, and who has written."""

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
    """For how long somebody has waited for others' copies to end."""
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
            later=background.submit,
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
    """What was counted of webhooks, by labels."""
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


def test_the_handshake_gives_the_challenge_back(client) -> None:
    """Bare, and not as anything that a browser would run."""
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
def test_whoever_does_not_know_the_token_gets_no_challenge(client, changes) -> None:
    """Whatever it is."""
    answer = verify(client, **changes)

    assert answer.status_code == 403
    assert answer.json["code"] == "invalid_verify_token"
    assert "1158201444" not in answer.text


@pytest.mark.parametrize("challenge", ["", "1" * 257, "1 2", "1\n2", "é"], ids=ascii)
def test_no_other_text_is_a_challenge(client, challenge) -> None:
    """It is bounded, and one word."""
    answer = verify(client, **{"hub.challenge": challenge})

    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")


# What Meta tells.


@pytest.mark.parametrize("kind", ["message", "postback"])
def test_whoever_writes_is_refused_no_more(client, kind) -> None:
    """As soon as that is acknowledged; Meta is asked again."""
    client.graph.outcomes[ADA] = a_refusal()
    client.get(f"/profiles/{ADA}")
    client.graph.outcomes[ADA] = a_profile()

    answer = post(client, a_body(ADA, kind=kind))

    assert answer.status_code == 200
    assert answer.json == {"updates": 1, "writers": 1}
    assert client.get(f"/profiles/{ADA}").status_code == 200
    assert client.graph.calls == 2


def test_a_profile_stays_and_nobody_waits(client, store, naps) -> None:
    """The usual case, by far: somebody known for a while goes on writing."""
    client.graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}")
    store.pexpire(f"pp:e:{{default:{ADA}}}", 1_800_000)

    post(client, a_body(ADA))

    assert naps == []
    client.get(f"/profiles/{ADA}")
    assert client.graph.calls == 1


def test_a_refusal_is_outlasted_once_for_all_of_them(client, naps) -> None:
    """Other processes may have copies; they were all dropped at the same time."""
    post(client, a_body(ADA, "1254001234567891", "1254001234567892"))

    assert naps == [TRUSTED_FOR]


def test_a_refusal_that_was_only_just_replaced_is_outlasted_too(client, naps) -> None:
    """By somebody who asked for it anew, a moment before the message is told of."""
    client.graph.outcomes[ADA] = a_refusal()
    client.get(f"/profiles/{ADA}")
    client.graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}", headers={"Cache-Control": "no-cache"})

    post(client, a_body(ADA))

    assert naps == [TRUSTED_FOR]


def test_what_gives_no_consent_drops_nothing(client, naps) -> None:
    """A refusal is still one."""
    client.graph.outcomes[ADA] = a_refusal()
    client.get(f"/profiles/{ADA}")

    answer = post(client, a_body(ADA, kind="read"))

    assert answer.json == {"updates": 1, "writers": 0}
    assert client.get(f"/profiles/{ADA}").status_code == 403
    assert (client.graph.calls, naps) == (1, [])


@pytest.mark.parametrize("secret", ["another", SECRET, APP_SECRET])
def test_any_of_our_secrets_will_do(client, secret) -> None:
    """Those that are listed, and the app's, which may have a comma."""
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
def test_what_is_not_signed_is_not_even_read(client, store, headers) -> None:
    """403, and nothing is marked or dropped."""
    answer = client.post(PATH, data=a_body(ADA), headers=headers)

    assert (answer.status_code, answer.json["code"]) == (403, "invalid_signature")
    assert store.keys("pp:w:*") == []
    assert counted(client) == {("refused",): 1}


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'{"object":"page"}'], ids=len)
def test_what_cannot_be_read_is_acknowledged(client, body) -> None:
    """Meta has signed it, and would send the same for 36 hours."""
    answer = post(client, body)

    assert (answer.status_code, answer.json) == (200, {"updates": 0, "writers": 0})
    assert counted(client) == {("unreadable",): 1}


def test_updates_are_counted_by_what_they_tell(client) -> None:
    """And the webhooks they came in."""
    post(client, a_body(ADA, "nobody"))
    post(client, a_body(ADA, kind="reaction"))

    assert counted(client) == {
        ("accepted",): 2,
        ("message", "written"): 1,
        ("message", "unreadable"): 1,
        ("reaction", "ignored"): 1,
    }


def test_while_the_store_is_away_meta_is_told_to_come_again(client, server) -> None:
    """Nothing was dropped, so nothing is promised."""
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


def test_a_person_is_fetched_when_they_write_if_that_is_wanted(new_client) -> None:
    """Before anybody asks."""
    client = new_client(WEBHOOK_PREFETCH="1")
    client.graph.outcomes[ADA] = a_profile()

    post(client, a_body(ADA, ADA))
    client.background.run()

    assert client.graph.asked == [ADA]
    assert "; hit; " in client.get(f"/profiles/{ADA}").headers["Cache-Status"]


# Who gets in.


def test_no_key_and_no_local_address_is_asked_for(new_client, tmp_path) -> None:
    """Meta has no key of ours, and comes by way of a gateway."""
    keys = tmp_path / "keys"
    keys.write_text(f"inbox read {'0' * 64}\n")
    client = new_client(API_KEYS_FILE=str(keys))
    from_outside = {"Host": "hooks.example.com", "X-Forwarded-For": "173.252.0.1"}

    assert post(client, a_body(ADA), **from_outside).status_code == 200
    assert verify(client).status_code == 200
    assert client.get(f"/profiles/{ADA}").status_code == 401


def test_without_a_verify_token_there_is_nothing_here(new_client) -> None:
    """Though there is an app secret, which has other uses."""
    client = new_client(WEBHOOK_VERIFY_TOKEN="", WEBHOOK_SECRETS="")

    for answer in (
        verify(client),
        post(client, a_body(ADA), secret=APP_SECRET),
        client.put(PATH),
    ):
        assert (answer.status_code, answer.json["code"]) == (404, "unknown_path")


def test_secrets_are_read_from_files(new_client, tmp_path: Path) -> None:
    """As the others are."""
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


def test_a_thousand_updates_fit(client) -> None:
    """What Meta sends at most in one body."""
    body = a_body(*(f"1254002{number:09d}" for number in range(1000)))

    assert 64 * 1024 < len(body) < 1024 * 1024
    assert post(client, body).json == {"updates": 1000, "writers": 1000}


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 10 * 1024 * 1024])
def test_a_longer_body_is_not_read(client, size) -> None:
    """By its length alone."""
    answer = post(client, b"x" * size)

    assert (answer.status_code, answer.json["code"]) == (413, "body_too_large")
    assert str(1024 * 1024) in answer.json["detail"]


def test_others_may_send_as_little_as_before(client) -> None:
    """Only Meta's bodies are that long."""
    answer = client.post("/admin/flush", data=b"x" * (64 * 1024 + 1))

    assert answer.status_code == 413
