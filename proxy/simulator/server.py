"""The simulator over HTTP."""

import base64
import json
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from proxy.simulator import graph, people
from proxy.simulator.control import Control
from proxy.simulator.graph import Call, read_call
from proxy.simulator.ledger import Ledger, Record
from proxy.simulator.people import Person
from proxy.simulator.pictures import Album, picture
from proxy.simulator.replies import Reply, own_json
from proxy.simulator.scenario import FIRST_PAGE, Rules, Scenario
from proxy.simulator.scripts import MAX_WAIT, Script, Wire
from proxy.simulator.webhooks import Webhooks
from proxy.simulator.wire import Delivery, End, send, wait

DEFAULT_TOKEN = "EAASIMULATEDPAGETOKEN"
MAX_BODY_BYTES = 1024 * 1024
MAX_PATH_LENGTH = 200
_TAKES_LONG = (Wire.DRIP, Wire.DRIP_HEADERS, Wire.HUGE)


class Simulator:
    """A stand-in for Meta that listens from construction and serves once entered.

    Used as ``with Simulator() as meta: ... meta.url ...``. Port 0 takes any free
    port. *public_url* is the base URL of the pictures, if it differs from the
    address it listens at, as it does in a container. *webhook_url* receives a
    webhook for each message, signed with the *app_secret* of its Page. *pages* are
    more Pages, each with a token and perhaps a secret. Leaving it ends every call
    that hangs and closes every connection.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token: str = DEFAULT_TOKEN,
        app_secret: str | None = None,
        public_url: str | None = None,
        webhook_url: str | None = None,
        pages: Mapping[str, tuple[str, str | None]] = {},
        is_verbose: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.is_verbose = is_verbose
        self.scenario = Scenario(
            Rules(token, app_secret),
            {
                name: Rules(*page, number=number)
                for number, (name, page) in enumerate(pages.items(), start=1)
            },
        )
        self.ledger = Ledger()
        self.stopping = threading.Event()
        self._listener = _Listener((host, port), self)
        self.url = _url(host, self._listener.server_port)
        self.album = Album((public_url or self.url).rstrip("/"))
        webhooks = Webhooks(webhook_url) if webhook_url else None
        self.control = Control(
            self.scenario, self.ledger, self.album, clock, webhooks, self.url
        )
        self._thread = threading.Thread(
            target=self._listener.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="simulator",
            daemon=True,
        )

    def __enter__(self) -> "Simulator":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        self.scenario.release()
        self.ledger.close()
        self._listener.shutdown()
        self._listener.server_close()
        self._listener.close_connections()
        self._thread.join(timeout=5)


def _url(host: str, port: int) -> str:
    named = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{named}]:{port}" if ":" in named else f"http://{named}:{port}"


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], simulator: Simulator) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.simulator = simulator
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Exchange)

    def server_bind(self) -> None:
        # Not the parent class's method, which looks up its own name in the DNS.
        socketserver.TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Shut down all connections, to wake threads that wait for a next request."""
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # gone already

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Half of the tests are about clients that disconnect in the middle.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 75
    server: _Listener

    def do_GET(self) -> None:
        simulator = self.server.simulator
        path, _, query = self.path.partition("?")
        body = self._read_body()
        if isinstance(body, Reply):
            self._send(body)
        elif path == "/_sim" or path.startswith("/_sim/"):
            path = "/_sim/" if path == "/_sim" else path
            self._send(self._answer_control(path, query, body))
        elif path.startswith("/pictures/"):
            self._send(picture(path, query, simulator.clock()))
        else:
            self._answer_as_meta(
                read_call(self.command, self.path, self.headers.get("authorization"))
            )

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answer_control(self, path: str, query: str, body: bytes) -> Reply:
        try:
            value = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            return own_json(400, {"problem": "the body is not JSON"})
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        control = self.server.simulator.control
        return control.answer(self.command, path, parameters, value)

    def _read_body(self) -> bytes | Reply:
        """Return the body, or the reply to one that must not be read."""
        length = self.headers.get("content-length", "0")
        is_number = length.isdecimal() and len(length) < 16
        if "transfer-encoding" in self.headers or not is_number:
            self.close_connection = True
            return own_json(411, {"problem": "a body needs its length"})
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            return own_json(413, {"problem": f"at most {MAX_BODY_BYTES} bytes"})
        return self.rfile.read(int(length))

    def _answer_as_meta(self, call: Call) -> None:
        simulator = self.server.simulator
        token_page = simulator.scenario.page_of_token(call.token)
        page = token_page or FIRST_PAGE
        script = None
        if simulator.scenario.page_of_person(call.node) in (None, page):
            script = simulator.scenario.take_script(call.node)
        released = simulator.scenario.release_event()
        record = Record(
            igsid=call.node[:MAX_PATH_LENGTH],
            path=self.path.partition("?")[0][:MAX_PATH_LENGTH],
            fields=call.fields,
            authorization=call.authorization,
            proof="appsecret_proof" in call.query,
            at=simulator.clock(),
            page=token_page,
        )
        arrival = simulator.ledger.arrive(record)
        status: int | None = None
        try:
            number = simulator.scenario.rules_of(page).number
            person = people.find(call.node, number)
            if not self._delay(person, script, released):
                self.close_connection = True
                return
            reply = graph.answer(
                call,
                simulator.scenario.rules_of(page),
                simulator.album,
                script=script,
                nth=arrival.nth,
                this_hour=arrival.this_hour,
                trace=_trace(),
                now=simulator.clock(),
            )
            wire = Wire.WHOLE if script is None else script.wire
            if wire not in (Wire.DROP, Wire.RESET):
                status = reply.status
            if wire not in _TAKES_LONG:
                # Before it is sent: a test that has the answer may read this at once.
                simulator.ledger.finish(record, status)
            self._send(reply, wire, released)
        finally:
            simulator.ledger.finish(record, status)

    def _delay(
        self, person: Person | None, script: Script | None, released: threading.Event
    ) -> bool:
        """Wait as the person or script demands; return whether the client is there."""
        simulator = self.server.simulator
        seconds = person.answers_after if person else 0.0
        if script is not None and script.answers_after is not None:
            seconds = script.answers_after
        if seconds:
            end = wait(self.connection, seconds, simulator.stopping)
            if end is not End.TIME:
                return False
        if script is None or script.wire is not Wire.HANG:
            return True
        end = wait(self.connection, MAX_WAIT, released)
        return end is End.EVENT and not simulator.stopping.is_set()

    def _send(
        self,
        reply: Reply,
        wire: Wire = Wire.WHOLE,
        released: threading.Event | None = None,
    ) -> None:
        self._log(reply.status, wire)
        delivery = Delivery(
            wire=wire,
            released=released or self.server.simulator.stopping,
            keeps_alive=not self.close_connection,
            has_body=self.command != "HEAD" and reply.status not in (204, 304),
        )
        if not send(self.connection, reply, delivery):
            self.close_connection = True

    def _log(self, status: int, wire: Wire) -> None:
        if self.server.simulator.is_verbose:
            path = self.path.partition("?")[0]
            sys.stderr.write(f"{self.command} {path} {status} {wire}\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the parent class logs request lines, with their tokens."""


def _trace() -> str:
    return "A" + base64.b64encode(secrets.token_bytes(16)).decode().rstrip("=")
