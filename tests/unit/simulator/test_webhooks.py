"""The simulator's webhooks: somebody writes, and whoever is to know is told."""

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
    """Takes what is sent, and answers with ``status``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.status = 200
        self.taken: list[tuple[str, str, bytes]] = []


class _Taking(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        signature = self.headers["x-hub-signature-256"]
        self.server.taken.append((self.path, signature, body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.05,))
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


@pytest.fixture
def telling(receiver: Receiver) -> Iterator[Client]:
    """A simulator that tells *receiver*; it demands no proof of the calls here."""
    url = f"http://127.0.0.1:{receiver.server_port}/hooks"
    with Simulator(app_secret=SECRET, webhook_url=url) as simulator:
        yield Client(simulator.url)


def test_whoever_writes_consents_and_is_told_of(
    telling: Client, receiver: Receiver
) -> None:
    """Signed as Meta signs: the bytes that are sent, escapes and all."""
    status, said = telling.sim("POST", f"people/{BEN}/writes")

    assert (status, said["webhook"]) == (200, 200)
    [(path, signature, body)] = receiver.taken
    right = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert (path, signature) == ("/hooks", f"sha256={right}")
    assert body.isascii() and b"\\u" in body
    [entry] = json.loads(body)["entry"]
    [event] = entry["messaging"]
    assert event["sender"]["id"] == BEN and "is_echo" not in event["message"]
    assert BEN in telling.sim("GET", "people")[1]["scripted"]


def test_a_message_to_another_page_is_of_its_account(receiver: Receiver) -> None:
    """And signed with the secret of that Page's app."""
    url = f"http://127.0.0.1:{receiver.server_port}/hooks"
    pages = {"shop": ("EAASHOP", "shopsecret"), "cafe": ("EAACAFE", None)}
    with Simulator(app_secret=SECRET, webhook_url=url, pages=pages) as simulator:
        client = Client(simulator.url)
        client.sim("POST", f"people/{BEN}/writes")
        client.sim("POST", "people/1254101000000002/writes")
        refused, _ = client.sim("POST", "people/1254201000000002/writes")

    told = []
    for (_, signature, body), secret in zip(
        receiver.taken, (SECRET, "shopsecret"), strict=True
    ):
        right = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        assert signature == f"sha256={right}"
        told.append(json.loads(body)["entry"][0]["id"])
    assert told == ["17841400000000000", "17841400000000001"]
    assert refused == 400


def test_what_comes_back_is_told(telling: Client, receiver: Receiver) -> None:
    """Also that nothing does."""
    receiver.status = 503

    assert telling.sim("POST", f"people/{BEN}/writes")[1]["webhook"] == 503

    with Simulator(
        app_secret=SECRET, webhook_url="http://127.0.0.1:1/hooks"
    ) as simulator:
        said = Client(simulator.url).sim("POST", f"people/{BEN}/writes")[1]
    assert said["webhook"] is None


def test_nobody_writes_where_nobody_is_to_be_told(meta: Client) -> None:
    """It says how to start it for that; and only POST makes somebody write."""
    status, said = meta.sim("POST", f"people/{BEN}/writes")

    assert status == 400 and "--webhook-url" in said["problem"]
    assert meta.sim("PUT", f"people/{BEN}/writes", {})[0] == 405
    assert meta.sim("POST", "people/x/writes")[0] == 400


def test_webhooks_need_a_secret_to_sign_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As told at the start, and not when somebody writes."""
    with pytest.raises(SystemExit):
        main(["--webhook-url", "http://localhost/"])

    assert "--app-secret" in capsys.readouterr().err
