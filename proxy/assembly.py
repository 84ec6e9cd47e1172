"""build_pages(): the parts that all Pages share, and every configured Page."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, cast

import redis
from flask import Flask
from flask_caching import Cache

from proxy.config.pages_file import BadPages, PageSettings, check_hosts, read_pages
from proxy.config.readers import Secret, token_reader
from proxy.config.settings import (
    Settings,
    SettingsError,
)
from proxy.coordination.allowance import Allowance
from proxy.coordination.bulkhead import Bulkhead
from proxy.coordination.task_queue import TaskQueue
from proxy.domain.profile import DEFAULT_PAGE
from proxy.graph.client import GraphClient
from proxy.live_files import IN_CLEAR, LiveFiles
from proxy.lookup.graph import Graph
from proxy.lookup.lookup import ProfileLookup
from proxy.lookup.pages import Named, Pages
from proxy.observability.metrics import Metrics
from proxy.page_assembly import Parts, Submit, build_page
from proxy.storage.client_factory import new_client
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.invalidation_listener import InvalidationListener
from proxy.storage.near_cache import NearCache
from proxy.storage.nodes import nodes_of
from proxy.storage.store_url import EMBEDDED

log = logging.getLogger(__name__)

SPARE_CONNECTIONS = 32
"""Connections to the store beyond one for each thread that serves."""

SPARE_THREADS = 64
"""Threads of a process that never wait for Meta, so that one is free for hits."""

NewPage = Callable[[str, Callable[[], Graph]], ProfileLookup]
"""Builds a Page, given its name and a function that builds its client of Meta."""


def build_pages(
    app: Flask,
    settings: Settings,
    *,
    files: LiveFiles | None = None,
    client: redis.Redis | None = None,
    near: NearCache | None = None,
    graphs: Mapping[str, Graph] = {},
    metrics: Metrics | None = None,
    submit: Submit | None = None,
    now: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
    sleep: Callable[[float], None] = time.sleep,
) -> Pages:
    """Build the lookup of every Page, for the service or for a command.

    *graphs*, by Page, ask Meta in place of a client of ours.

    Raises:
        SettingsError: the settings, or a file they name, are invalid.
    """
    metrics = metrics or Metrics()
    cache = _new_cache(app, settings, client or new_store_client(settings))
    store = EntryStore(
        cache,
        DEFAULT_PAGE,
        near=near,
        count_error=metrics.count_store_error,
        sleep=sleep,
    )
    parts = Parts(
        settings=settings,
        cache=cache,
        store=store,
        allowance=_new_allowance(settings, store, cache),
        bulkhead=_new_bulkhead(settings),
        metrics=metrics.of_page(DEFAULT_PAGE),
        submit=submit or TaskQueue().submit,
        now=now,
        sleep=sleep,
        jitter=jitter,
    )

    def new_page(name: str, new_graph: Callable[[], Graph]) -> ProfileLookup:
        own = parts.of_page(name, metrics.of_page(name))
        return build_page(own, graphs.get(name) or new_graph())

    return _pages_of(settings, files or LiveFiles(), new_page)


def _new_cache(app: Flask, settings: Settings, client: redis.Redis) -> ProfileCache:
    cache = Cache(
        app,
        config={
            "CACHE_TYPE": f"{ProfileCache.__module__}.{ProfileCache.__qualname__}",
            "CACHE_KEY_PREFIX": f"{settings.key_prefix}:",
            "CACHE_DEFAULT_TIMEOUT": math.ceil(settings.profile_ttl),
            "CACHE_OPTIONS": {"client": client},
        },
    )
    return cast(ProfileCache, cache.cache)


def _new_allowance(
    settings: Settings, store: EntryStore, cache: ProfileCache
) -> Allowance:
    return Allowance(
        cache, guard=store.guard, misses_per_minute=settings.misses_per_minute
    )


def _new_bulkhead(settings: Settings) -> Bulkhead:
    return Bulkhead(
        seats=settings.graph_concurrency, waiters=settings.threads - SPARE_THREADS
    )


def _pages_of(settings: Settings, files: LiveFiles, new_page: NewPage) -> Pages:
    """The default Page, if the settings have its token, and the Pages of the file."""
    default = None
    if token := settings.page_token:
        new_graph = partial(
            _new_graph, settings, DEFAULT_PAGE, files, token, settings.app_secret
        )
        default = new_page(DEFAULT_PAGE, new_graph)
    named = files.pages(settings, _NamedPages(settings, new_page))
    return Pages(default, named) if named else Pages(default)


def new_store_client(settings: Settings) -> redis.Redis:
    """A client of the store, with a connection for each thread that serves.

    Raises:
        SettingsError: the store is the embedded engine, which only `run` starts.
    """
    if settings.store_url.is_embedded:
        raise SettingsError(
            [
                f"PROXY_STORE_URL={EMBEDDED} is an engine that only `profile-proxy run`"
                " starts; name a store that is there, such as redis://localhost:6379/0"
            ]
        )
    return new_client(settings.store_url, settings.threads + SPARE_CONNECTIONS)


def new_near_cache(settings: Settings, client: redis.Redis) -> NearCache | None:
    """This process's own cache; None where it is off, or cannot be kept up to date.

    Each node of a Cluster sends invalidations of its own keys only, and nodes come
    and go.
    """
    if not settings.near_entries or not nodes_of(client, "").can_track:
        return None
    return NearCache(
        settings.near_entries,
        outage_grace=settings.outage_grace,
        start_listener=InvalidationListener(client, f"{settings.key_prefix}:e:").start,
    )


class _ServedPage(NamedTuple):
    """A Page that is served, the settings it was built from, and its files."""

    settings: PageSettings
    lookup: ProfileLookup
    files: LiveFiles
    app_secret: Callable[[], str] | None


class _NamedPages:
    """The Pages of the file, each built again when its settings there change.

    A Page that is built again goes on where it was: everything that must outlive it
    is in the store, and a flight under way ends where it began.
    """

    def __init__(self, settings: Settings, new_page: NewPage) -> None:
        self._settings = settings
        self._new_page = new_page
        self._served: dict[str, _ServedPage] = {}
        self._has_read = False

    def read(self, text: str) -> Named:
        """The Pages of a file that has just been read.

        Raises:
            BadFile: it is invalid, and all Pages are as before.
        """
        pages = read_pages(text)
        check_hosts(pages, self._settings.graph_url)
        if not pages and self._settings.page_token is None:
            raise BadPages(["holds no Page, and PROXY_PAGE_TOKEN is not set"])
        served = {name: self._serve(name, page) for name, page in pages.items()}
        self._served, self._has_read = served, True
        return Named(
            {name: page.lookup for name, page in served.items()},
            {account: name for name, page in pages.items() for account in page.ids},
        )

    def app_secrets(self) -> list[str]:
        return [page.app_secret() for page in self._served.values() if page.app_secret]

    def problems(self) -> list[str]:
        """The files that are invalid, of which Page, as reasons."""
        return [
            f"{problem}:{name}"
            for name, page in self._served.items()
            for problem in page.files.problems()
        ]

    def _serve(self, name: str, page: PageSettings) -> _ServedPage:
        """The Page as it is served already, or built if its settings are new."""
        previous = self._served.get(name)
        if previous and previous.settings == page:
            return previous
        if page.is_in_clear and self._has_read:
            log.warning(IN_CLEAR, extra={"page": name})  # A start warns by itself.
        files, secret = LiveFiles(), page.app_secret
        new_graph = partial(
            _new_graph, self._settings, name, files, page.token, secret, page.url
        )
        return _ServedPage(
            page,
            self._new_page(name, new_graph),
            files,
            files.secret("app_secret_file", secret) if secret else None,
        )


def _new_graph(
    settings: Settings,
    page: str,
    files: LiveFiles,
    token: Secret,
    secret: Secret | None,
    url: str | None = None,
) -> GraphClient:
    base_url = url or settings.graph_url
    return GraphClient(
        f"{base_url}/{settings.graph_version}",
        token=files.secret("page_token_file", token, token_reader(base_url)),
        app_secret=files.secret("app_secret_file", secret) if secret else None,
        blocked=settings.blocked_codes,
        calls_at_once=settings.graph_concurrency,
        page=page,
    )
