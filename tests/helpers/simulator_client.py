"""A client of the simulator for its own tests."""

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

from proxy.simulator.server import DEFAULT_TOKEN

ADA, BEN = "1254001000000001", "1254001000000002"


class Client:
    """Calls one simulator; every call has its own connection."""

    def __init__(self, url: str) -> None:
        self.host, self.port = urlsplit(url).hostname or "", urlsplit(url).port or 0

    def open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=10)

    def profile(self, igsid: str = ADA) -> tuple[int, bytes]:
        connection = self.open()
        try:
            connection.request("GET", profile_target(igsid), headers=BEARER)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def sim(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = self.open()
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/_sim/{path}", text)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()

    def script(self, igsid: str = ADA, **script: object) -> None:
        assert self.sim("PUT", f"people/{igsid}", script)[0] == 200

    def wait_for_calls(self, igsid: str = ADA, calls: int = 1) -> None:
        path = f"await?igsid={igsid}&calls={calls}&seconds=10"
        assert self.sim("GET", path)[0] == 200

    def raw(self, igsid: str = ADA) -> socket.socket:
        """Return a connection on which the profile was just requested."""
        connection = socket.create_connection((self.host, self.port), timeout=10)
        head = f"GET {profile_target(igsid)} HTTP/1.1\r\nHost: sim\r\n"
        connection.sendall(
            f"{head}Authorization: Bearer {DEFAULT_TOKEN}\r\n\r\n".encode()
        )
        return connection


BEARER = {"Authorization": f"Bearer {DEFAULT_TOKEN}"}


def profile_target(igsid: str) -> str:
    return f"/v25.0/{igsid}?fields=name,profile_pic"
