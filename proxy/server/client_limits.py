"""The limits in seconds on silent clients, as a worker sets them up."""

from __future__ import annotations

from functools import partial
from typing import Any

from proxy.server.body_timeout import BodyTimeouts
from proxy.server.client_connections import client_connections
from proxy.server.granian_hook import GranianCallback, Wrap
from proxy.server.silent_clients import RequestsInFlight, SilentClients
from proxy.web.request_body import BODY_LIMIT


def limit_clients(port: int) -> Wrap:
    """Limit the clients of our *port* from now on. Never before a fork.

    Returns a function that wraps granian's callback for requests of the views, so
    that those are known, and the reads of their bodies have a limit.
    """
    connections = partial(client_connections, port)
    in_flight, bodies = RequestsInFlight(), BodyTimeouts(connections)
    SilentClients(connections, in_flight).start()

    def limit(call_app: GranianCallback) -> GranianCallback:
        def call(protocol: Any, environ: dict[str, Any]) -> int:
            address = environ.get("REMOTE_ADDR", "")
            if "CONTENT_LENGTH" in environ:
                environ[BODY_LIMIT] = partial(bodies.limit, protocol, address)
            with in_flight.running(address):
                return call_app(protocol, environ)

        return call

    return limit
