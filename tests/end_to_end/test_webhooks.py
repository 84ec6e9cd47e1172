"""Webhooks over HTTP: as documented, as recorded, and invalid ones."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import trustme

from tests.helpers.processes import (
    APP_SECRET,
    BEN,
    VERIFY_TOKEN,
    Service,
    a_webhook,
    crowd,
    free_port,
    post_webhook,
    wait_until,
)
from tests.helpers.redis_servers import require
from tests.helpers.stack import Stack

DOCS = Path(__file__).parents[2] / "docs"
RECORDED = Path(__file__).parents[1] / "fixtures" / "graph"
HANDSHAKE = {
    "hub.mode": "subscribe",
    "hub.verify_token": VERIFY_TOKEN,
    "hub.challenge": "1158201444",
}


def has_marker(stack: Stack, igsid: str) -> bool:
    return bool(stack.redis.exists(f"pp:w:{{default:{igsid}}}"))


def test_message_ends_a_refusal(stack) -> None:
    """The next request fetches the profile."""
    assert stack.service.get(f"/profiles/{BEN}").status_code == 403
    stack.meta.person(BEN, profile={"name": "Ben"})
    assert stack.service.get(f"/profiles/{BEN}").status_code == 403

    acknowledged = post_webhook(stack.service, a_webhook(BEN))

    assert acknowledged.status_code == 200
    assert stack.service.get(f"/profiles/{BEN}").json()["name"] == "Ben"


def recorded(name: str) -> bytes:
    """Return a recorded webhook as Meta sends it."""
    body = json.loads((RECORDED / f"webhook-{name}.json").read_text())["body"]
    return json.dumps(body).replace("/", "\\/").encode()


WRITER = "1254001234567890"
WITHOUT_ENVELOPE = json.dumps(
    {
        "field": "messages",
        "value": {
            "sender": {"id": WRITER},
            "recipient": {"id": "17841400000000000"},
            "message": {"mid": "m"},
        },
    }
).encode()


@pytest.mark.parametrize(
    ("body", "sender"),
    [
        (recorded("message-text"), WRITER),
        (recorded("message-edit-is-new"), WRITER),
        (recorded("changes-messages"), WRITER),
        (recorded("numeric-ids"), WRITER),
        (recorded("postback-icebreaker"), WRITER),
        (recorded("postback-from-ad"), WRITER),
        (recorded("standby"), "8422400000000597"),
        (WITHOUT_ENVELOPE, WRITER),
    ],
    ids=["text", "edit", "changes", "numbers", "icebreaker", "ad", "standby", "bare"],
)
def test_message_in_any_form_ends_a_refusal(stack, body, sender) -> None:
    """It is signed with the app's own secret, as by Meta."""
    stack.meta.person(sender, error={"code": 230})
    assert stack.service.get(f"/profiles/{sender}").status_code == 403
    stack.meta.person(sender, profile={"name": "Ada"})

    answer = post_webhook(stack.service, body, APP_SECRET)

    assert (answer.status_code, answer.json()["writers"]) == (200, 1)
    assert has_marker(stack, sender)
    assert stack.service.get(f"/profiles/{sender}").json()["name"] == "Ada"


@pytest.mark.parametrize(
    "name", ["echo", "self-message", "reaction", "seen-doc", "dashboard-test"]
)
def test_recorded_webhook_of_another_kind_sets_no_marker(stack, name) -> None:
    """It is acknowledged all the same."""
    answer = post_webhook(stack.service, recorded(name))

    assert answer.json() == {"updates": 1, "writers": 0}
    assert stack.redis.keys("pp:w:*") == []


def test_messages_of_the_business_to_itself_cause_no_call(stack) -> None:
    """With prefetch, 20 of 20 different accounts; then a person's message does."""
    service = Service(**stack.settings, WEBHOOK_PREFETCH="1")
    try:
        for number in range(20):
            account = b"%d" % (17841400000000000 + number)
            body = recorded("self-message").replace(b"17841400000000000", account)
            if number % 2:  # The account is known by its id alone.
                body = body.replace(b'"is_self": true', b'"is_self": false')
            assert post_webhook(service, body).json() == {"updates": 1, "writers": 0}
        post_webhook(service, a_webhook(crowd(1)))
        stack.meta.await_calls(crowd(1))
    finally:
        service.stop()

    assert stack.meta.calls() == 1
    assert not list(stack.redis.scan_iter("pp:g:*:permission"))


def odd(event: dict[str, object], **whole: object) -> bytes:
    entry = {"id": "17841400000000000", "messaging": [event]}
    return json.dumps({"object": "instagram", "entry": [entry]} | whole).encode()


MESSAGE = {"message": {"mid": "m"}}


@pytest.mark.parametrize(
    "body",
    [
        odd(MESSAGE),
        odd(MESSAGE | {"sender": {"id": 1254001234567890.5}}),
        odd(MESSAGE | {"sender": {"id": "1254001234567890"}}, object="page"),
        b"[" * 1_000_000,
        b'{"object":"instagram","entry":' + b"[" * 900_000,
        b"\x00\xff" * 1000,
    ],
    ids=["no sender", "id as float", "another object", "deep", "deeper", "bytes"],
)
def test_unreadable_webhook_is_acknowledged_and_sets_no_marker(stack, body) -> None:
    """It is signed, so Meta would send it again; and it causes no traceback."""
    answer = post_webhook(stack.service, body)

    assert (answer.status_code, answer.json()["writers"]) == (200, 0)
    assert stack.redis.keys("pp:w:*") == []
    assert "Traceback" not in stack.service.log()


def test_webhook_with_an_invalid_signature_sets_no_marker(stack) -> None:
    """And does not end a refusal."""
    stack.service.get(f"/profiles/{BEN}")
    stack.meta.person(BEN, profile={"name": "Ben"})

    answer = post_webhook(stack.service, a_webhook(BEN), "another secret")

    assert (answer.status_code, answer.json()["code"]) == (403, "invalid_signature")
    assert stack.service.get(f"/profiles/{BEN}").status_code == 403
    assert stack.redis.keys("pp:w:*") == []


def test_webhook_of_10_mb_is_refused_unread(stack) -> None:
    """By its Content-Length: the test sends no byte of the body."""
    head = "POST /webhooks/instagram HTTP/1.1\r\nHost: localhost\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 10485760\r\n\r\n"
    with socket.create_connection(("127.0.0.1", stack.service.port), 10) as connection:
        connection.sendall(head.encode())
        answer = ""
        while part := connection.recv(65536).decode():
            answer += part  # The service closes the connection after it.

    assert answer.startswith("HTTP/1.1 413 ")
    assert "body_too_large" in answer


def test_webhook_without_a_length_is_refused(stack) -> None:
    """Its body could be endless."""
    answer = stack.service.request(
        "POST", "/webhooks/instagram", data=iter([b"{}"]), timeout=10
    )

    assert (answer.status_code, answer.json()["code"]) == (411, "length_required")


def test_webhook_with_1001_updates_is_acknowledged_in_time(stack) -> None:
    """A thousand different senders, and one of them twice."""
    people = [crowd(number) for number in range(1000)]

    began = time.monotonic()
    answer = post_webhook(stack.service, a_webhook(*people, people[0]))
    took = time.monotonic() - began

    assert answer.json() == {"updates": 1001, "writers": 1000}
    assert len(stack.redis.keys("pp:w:*")) == 1000
    assert took < 1.5


def test_webhook_is_logged_without_its_sender(stack) -> None:
    """And a handshake without its token."""
    post_webhook(stack.service, a_webhook("98765432101234567"))
    stack.service.get("/webhooks/instagram", params=HANDSHAKE)

    log = stack.service.log()
    assert '"route": "/webhooks/instagram"' in log
    assert "98765432101234567" not in log
    assert VERIFY_TOKEN not in log


# The gateway in docs/operations.md.


@pytest.fixture
def gateway(stack, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """nginx with the configuration of docs/operations.md, in front of the service."""
    require(shutil.which("nginx") is not None, "nginx")
    page = (DOCS / "operations.md").read_text()
    [example] = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    certificate = trustme.CA()
    certificate.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "hooks.pem"
    )
    certificate.cert_pem.write_to_path(tmp_path / "ca.pem")
    port = free_port()
    for old, new in (
        ("443", f"127.0.0.1:{port}"),
        ("hooks.example.com", "localhost"),
        ("127.0.0.1:8080", f"127.0.0.1:{stack.service.port}"),
        ("/etc/nginx/hooks.key", f"{tmp_path}/hooks.pem"),
        ("/etc/nginx", str(tmp_path)),
        ("/var/log/nginx", str(tmp_path)),
    ):
        assert old in example, old
        example = example.replace(old, new)
    folders = "\n".join(
        f"{name}_temp_path {tmp_path}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; pid {tmp_path}/pid; events {{}}\n"
        f"http {{\n{folders}\n{example}}}\n"
    )
    process = subprocess.Popen(
        ["nginx", "-p", tmp_path, "-c", config, "-e", tmp_path / "errors"]
    )

    def is_up() -> bool:
        assert process.poll() is None, (tmp_path / "errors").read_text()
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", port)) == 0

    wait_until(is_up, 10, "the gateway listens")
    session = requests.Session()
    session.trust_env, session.verify = False, str(tmp_path / "ca.pem")
    yield SimpleNamespace(
        url=f"https://localhost:{port}",
        session=session,
        log=lambda: (tmp_path / "hooks.log").read_text(),
        request=lambda method, path, **kwargs: session.request(
            method, f"https://localhost:{port}{path}", timeout=10, **kwargs
        ),
    )
    process.terminate()
    process.wait(10)


def test_gateway_forwards_only_webhooks(stack, gateway) -> None:
    """The service behind it serves only its own machine."""
    stack.service.get(f"/profiles/{BEN}")
    stack.meta.person(BEN, profile={"name": "Ben"})

    handshake = gateway.request("GET", "/webhooks/instagram", params=HANDSHAKE)
    webhook = post_webhook(gateway, a_webhook(BEN))
    chunked = gateway.request("POST", "/webhooks/instagram", data=iter([b"{}"]))
    others = [
        gateway.request(method, path).status_code
        for method, path in (
            ("GET", f"/profiles/{BEN}"),
            ("GET", "/metrics"),
            ("GET", f"/webhooks/../profiles/{BEN}"),
            ("GET", "/webhooks/instagram/../../metrics"),
            ("DELETE", f"/admin/profiles/{BEN}"),
            ("GET", "/webhooks/"),
        )
    ]

    assert (handshake.status_code, handshake.text) == (200, "1158201444")
    assert (webhook.status_code, webhook.json()["writers"]) == (200, 1)
    assert chunked.json()["code"] == "invalid_signature"
    assert others == [404] * 6
    assert stack.service.get(f"/profiles/{BEN}").status_code == 200
    assert "GET /webhooks/instagram 200" in gateway.log()
    assert VERIFY_TOKEN not in gateway.log()
