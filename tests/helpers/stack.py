"""Services on one store, in front of one simulated Meta."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.helpers.processes import PAGE_TOKEN, Service, SimulatedMeta, empty_store
from tests.helpers.redis_servers import client_of


@dataclass(frozen=True, slots=True)
class Stack:
    """Running services, with what they share.

    *settings* are those of all services, without their ``PROXY_``; *graph_timeout*
    is one of them, in seconds. *redis* is a client of the store of its own.
    """

    meta: SimulatedMeta
    services: Sequence[Service]
    redis: redis.Redis
    settings: dict[str, str]
    graph_timeout: float

    @property
    def service(self) -> Service:
        """The first service."""
        return self.services[0]

    @property
    def other(self) -> Service:
        """The second service."""
        return self.services[1]

    @property
    def token_file(self) -> Path:
        """The file of the Page's token, if the settings name one."""
        return Path(self.settings["PAGE_TOKEN_FILE"])

    def reset(self) -> None:
        """Empty the store and the near caches, and the scripts and counts of Meta."""
        empty_store(self.redis, *self.services)
        self.meta.order("reset")


@contextmanager
def start_stack(
    store_url: str,
    *,
    services: Sequence[Mapping[str, Any]] = ({},),
    meta_arguments: Sequence[str] = (),
    graph_timeout: float = 2.0,
    settings: Mapping[str, str] = {},
) -> Iterator[Stack]:
    """Start a simulated Meta and *services*, and stop them afterwards.

    Each of *services* has the arguments of one `Service`, beside *settings* for all.
    """
    with ExitStack() as ending:
        meta = ending.enter_context(closing(SimulatedMeta(*meta_arguments)))
        shared = {
            "GRAPH_URL": meta.url,
            "GRAPH_TIMEOUT": f"{graph_timeout}s",
            "STORE_URL": store_url,
            "WORKERS": "1",
            **settings,
        }
        if "PAGE_TOKEN_FILE" not in shared:
            shared["PAGE_TOKEN"] = PAGE_TOKEN
        started = []
        for own in services:
            started.append(Service(**shared | own))
            ending.callback(started[-1].stop)
        client = ending.enter_context(client_of(store_url))
        yield Stack(meta, started, client, shared, graph_timeout)
