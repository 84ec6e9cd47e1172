"""The simulator's webhooks: a person writes, and the receiver gets a webhook."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from proxy.simulator.__main__ import main
from proxy.simulator.server import Simulator
from tests.helpers.simulator_client import BEN, Client

SECRET = "app-secret"


class Receiver(HTTPServer):
    """Keeps each request, and answers with ``status``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiving)
        self.status = 200
        self.received: list[tuple[str, str, bytes]] = []


class _Receiving(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        signature = self.headers["x-hub-signature-256"]
        self.server.received.append((self.path, signature, body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.05,))
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


@pytest.fixture
def sending(receiver: Receiver) -> Iterator[Client]:
    """A simulator that sends to *receiver*; it demands no proof of the calls here."""
    url = f"http://127.0.0.1:{receiver.server_port}/hooks"
    with Simulator(app_secret=SECRET, webhook_url=url) as simulator:
        yield Client(simulator.url)


def test_person_who_writes_consents_and_a_webhook_is_sent(
    sending: Client, receiver: Receiver
) -> None:
    """Signed as Meta signs: over the bytes that are sent, escapes included."""
    status, said = sending.sim("POST", f"people/{BEN}/writes")

    assert (status, said["webhook"]) == (200, 200)
    [(path, signature, body)] = receiver.received
    expected = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert (path, signature) == ("/hooks", f"sha256={expected}")
    assert body.isascii() and b"\\u" in body
    [entry] = json.loads(body)["entry"]
    [event] = entry["messaging"]
    assert event["sender"]["id"] == BEN and "is_echo" not in event["message"]
    assert BEN in sending.sim("GET", "people")[1]["scripted"]


def test_webhook_names_the_account_of_the_page(receiver: Receiver) -> None:
    """And signed with the secret of that Page's app."""
    url = f"http://127.0.0.1:{receiver.server_port}/hooks"
    pages = {"shop": ("EAASHOP", "shopsecret"), "cafe": ("EAACAFE", None)}
    with Simulator(app_secret=SECRET, webhook_url=url, pages=pages) as simulator:
        client = Client(simulator.url)
        client.sim("POST", f"people/{BEN}/writes")
        client.sim("POST", "people/1254101000000002/writes")
        refused, _ = client.sim("POST", "people/1254201000000002/writes")

    accounts = []
    for (_, signature, body), secret in zip(
        receiver.received, (SECRET, "shopsecret"), strict=True
    ):
        expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        assert signature == f"sha256={expected}"
        accounts.append(json.loads(body)["entry"][0]["id"])
    assert accounts == ["17841400000000000", "17841400000000001"]
    assert refused == 400


def test_status_of_the_receiver_is_reported(
    sending: Client, receiver: Receiver
) -> None:
    """Or null without an answer."""
    receiver.status = 503

    assert sending.sim("POST", f"people/{BEN}/writes")[1]["webhook"] == 503

    with Simulator(
        app_secret=SECRET, webhook_url="http://127.0.0.1:1/hooks"
    ) as simulator:
        said = Client(simulator.url).sim("POST", f"people/{BEN}/writes")[1]
    assert said["webhook"] is None


def test_writes_route_needs_a_webhook_url(meta: Client) -> None:
    """The problem names the option; and only POST makes a person write."""
    status, said = meta.sim("POST", f"people/{BEN}/writes")

    assert status == 400 and "--webhook-url" in said["problem"]
    assert meta.sim("PUT", f"people/{BEN}/writes", {})[0] == 405
    assert meta.sim("POST", "people/x/writes")[0] == 400


def test_webhook_url_needs_an_app_secret(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The start fails, and not the first message."""
    with pytest.raises(SystemExit):
        main(["--webhook-url", "http://localhost/"])

    assert "--app-secret" in capsys.readouterr().err
