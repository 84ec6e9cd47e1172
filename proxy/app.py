"""create_app(): puts the pieces together; nothing else builds anything."""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import redis
from flask import Flask, Response, g, request
from flask_caching import Cache
from werkzeug.exceptions import HTTPException

from proxy.background import Background
from proxy.cache.backend import ProfileCache, new_client
from proxy.cache.bulkhead import Bulkhead
from proxy.cache.cluster import Cluster
from proxy.cache.flight import Flight, lease_for
from proxy.cache.gate import Gate
from proxy.cache.near import Follower, NearCache
from proxy.cache.store import EntryStore
from proxy.graph.client import GraphClient
from proxy.graph.events import is_signed, read_updates
from proxy.graph.replies import BlockedCodes, may_mean_blocked
from proxy.graph.words import words_of
from proxy.logs import log_access
from proxy.lookup import Graph, ProfileLookup
from proxy.metrics import Metrics, StoreReading
from proxy.outcomes import LookupFailure, Reason, StoreUnavailable
from proxy.policy import Lifetimes, backoffs
from proxy.settings import (
    EMBEDDED,
    Secret,
    Settings,
    SettingsError,
    read_secret,
    read_secrets,
)
from proxy.watched import BadFile, WatchedFile
from proxy.web import admin, graph_door, probes, profiles, webhooks, wire
from proxy.web.hitpath import HitPath
from proxy.web.keys import Doorkeeper, Keys, read_keys

DEFAULT_PAGE = "default"
"""The Page that PROXY_PAGE_TOKEN belongs to, as it is named in keys of the store."""

SPARE_CONNECTIONS = 32
"""Connections to the store beyond one for each thread that serves."""

LOOKUP = "profile-proxy.lookup"
"""Where an app's extensions have its ProfileLookup."""


BEGIN = "profile-proxy.begin"
"""Where an app's extensions have what begins the threads of a process that serves.

Never before a fork, which threads do not survive: with the first request at the latest,
and sooner by a server that knows of no fork to come.
"""

SPARE_THREADS = 64
"""Threads of a process that never wait for Meta, so that hits find one."""

Later = Callable[[Hashable, Callable[[], None]], bool]
"""Runs a job in the background, unless one of that name waits there already."""

log = logging.getLogger(__name__)
T = TypeVar("T")


def create_app(
    settings: Settings | None = None,
    *,
    client: redis.Redis | None = None,
    graph: Graph | None = None,
    later: Later | None = None,
    near: NearCache | None = None,
    clock: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
    sleep: Callable[[float], None] = time.sleep,
    draining: Callable[[], bool] = lambda: False,
) -> Flask:
    """Build the service, from the environment if *settings* is left out.

    Whatever reaches outside can be replaced here: *client* is the store's,
    *graph* asks Meta, *later* runs a job in the background, *near* is this
    process's own cache and whoever gives it keeps it true, *clock* tells the
    time in epoch seconds, *jitter* draws from [0, 1) and *sleep* waits. *draining*
    tells whether the server is about to stop. Opens no connection; a store that is
    away is a state to live with, not an error.

    Raises:
        SettingsError: the settings, or a file they name, are no good.
    """
    settings = settings or read_settings(os.environ)
    app = Flask("proxy", static_folder=None)
    # A redirect to one slash would be HTML, and to whatever the caller calls us.
    app.url_map.merge_slashes = False
    # An OPTIONS that Flask answers by itself would ask for no key.
    app.config.update(PROVIDE_AUTOMATIC_OPTIONS=False)
    files = _Files()
    if client is None:
        client = _new_client(settings)
        near = near or _new_near(settings, client)
    metrics = Metrics()
    metrics.near = near
    lookup = new_lookup(
        app,
        settings,
        files=files,
        client=client,
        near=near,
        graph=graph,
        metrics=metrics,
        later=later,
        clock=clock,
        jitter=jitter,
        sleep=sleep,
    )
    app.extensions[LOOKUP] = lookup
    doorkeeper = _new_doorkeeper(settings, files)

    def degraded_by() -> list[str]:
        reasons = files.problems()
        try:
            lookup.check_store()
            reasons += lookup.store_risks()
        except StoreUnavailable:
            reasons.append("store_unavailable")
        return reasons

    def exposition() -> bytes:
        try:
            gate = lookup.gate_state()
        except StoreUnavailable:
            return metrics.exposition(None)
        closed_for = {state.cause: state.closed_for for state in gate.causes}
        return metrics.exposition(StoreReading(closed_for, gate.usage_percent))

    def begin() -> None:
        metrics.keep_folding()
        if near is not None:
            near.follow()

    def each_tick() -> None:
        begin()
        lookup.notice_token()

    app.extensions[BEGIN] = begin
    app.before_request(begin)
    app.register_blueprint(profiles.blueprint(lookup, doorkeeper, clock))
    app.register_blueprint(graph_door.blueprint(lookup, doorkeeper, words_of, clock))
    bodies = wire.BodyReader()
    app.register_blueprint(
        admin.blueprint(lookup, doorkeeper, bodies, clock, metrics.totals)
    )
    app.register_blueprint(probes.blueprint(degraded_by, draining, exposition))
    if settings.webhook_verify_token is not None:
        app.register_blueprint(
            webhooks.blueprint(
                lookup,
                bodies,
                metrics,
                verify_token=files.secret(
                    "webhook_verify_token_file", settings.webhook_verify_token
                ),
                is_signed=_signature_check(settings, files),
                read_updates=read_updates,
                prefetch=settings.webhook_prefetch,
            )
        )
    _handle_errors(app)
    _frame_requests(app, access_log=settings.access_log, draining=draining)
    app.wsgi_app = HitPath(  # type: ignore[method-assign]  # as Flask says to
        app.wsgi_app,
        lookup.store,
        doorkeeper,
        wall=clock,
        draining=draining,
        each_tick=each_tick,
        answers=metrics.answers,
        log_access=log_access if settings.access_log else None,
    )
    for warning in settings.warnings:
        log.warning(warning)
    return app


def read_settings(env: Mapping[str, str]) -> Settings:
    """Read the settings from *env*, and check them against what others know.

    Raises:
        SettingsError: with every mistake there is.
    """
    return Settings.from_env(
        env, {"API_KEYS_FILE": _open_keys, "BLOCKED_CODES": _check_blocked_codes}
    )


def _open_keys(path: Path) -> WatchedFile[Keys]:
    try:
        return WatchedFile(path, read_keys, time.monotonic)
    except BadFile as exc:
        raise SettingsError([f"PROXY_API_KEYS_FILE {exc}"]) from None


def _check_blocked_codes(codes: BlockedCodes) -> None:
    wrong = sorted(
        {code for code, subcode in codes if not may_mean_blocked(code, subcode)}
    )
    if wrong:
        raise SettingsError(
            [
                f"PROXY_BLOCKED_CODES must not list {', '.join(map(str, wrong))}: known"
                " to be about the token, the app, the quota or consent"
            ]
        )


def new_lookup(
    app: Flask,
    settings: Settings,
    *,
    files: _Files | None = None,
    client: redis.Redis | None = None,
    near: NearCache | None = None,
    graph: Graph | None = None,
    metrics: Metrics | None = None,
    later: Later | None = None,
    clock: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
    sleep: Callable[[float], None] = time.sleep,
) -> ProfileLookup:
    """Build what answers questions, for the service or for a command.

    Raises:
        SettingsError: the settings, or a file they name, are no good.
    """
    client = client or _new_client(settings)
    cache = Cache(
        app,
        config={
            "CACHE_TYPE": f"{ProfileCache.__module__}.{ProfileCache.__qualname__}",
            "CACHE_KEY_PREFIX": f"{settings.key_prefix}:",
            "CACHE_DEFAULT_TIMEOUT": math.ceil(settings.profile_ttl),
            "CACHE_OPTIONS": {"client": client},
        },
    )
    metrics = metrics or Metrics()
    store = EntryStore(
        cast(ProfileCache, cache.cache),
        DEFAULT_PAGE,
        near=near,
        count_error=metrics.count_store_error,
        sleep=sleep,
    )
    bulkhead = Bulkhead(
        seats=settings.graph_concurrency, room=settings.threads - SPARE_THREADS
    )
    return ProfileLookup(
        store=store,
        flight=Flight(
            store,
            graph_timeout=settings.graph_timeout,
            bulkhead=bulkhead,
            wall=clock,
            clock=time.monotonic,
            sleep=sleep,
        ),
        gate=Gate(
            cast(ProfileCache, cache.cache),
            DEFAULT_PAGE,
            reach=store.reach,
            backoffs=backoffs(settings.token_retry),
            probe_for=lease_for(settings.graph_timeout),
            usage_soft=settings.usage_soft,
            misses_per_minute=settings.misses_per_minute,
        ),
        bulkhead=bulkhead,
        graph=graph or _new_graph(settings, files or _Files()),
        metrics=metrics,
        later=later or Background().submit,
        lifetimes=_lifetimes(settings),
        usage_hard=settings.usage_hard,
        wall=clock,
        clock=time.monotonic,
        jitter=jitter,
    )


def _new_client(settings: Settings) -> redis.Redis:
    """
    Raises:
        SettingsError: the store is one that only `run` has.
    """
    if settings.store_url == EMBEDDED:
        raise SettingsError(
            [
                f"PROXY_STORE_URL={EMBEDDED} is an engine that only `profile-proxy run`"
                " starts; name a store that is there, such as redis://localhost:6379/0"
            ]
        )
    return new_client(settings.store_url, settings.threads + SPARE_CONNECTIONS)


def _new_near(settings: Settings, client: redis.Redis) -> NearCache | None:
    """This process's own cache; None where it is not wanted, or nobody keeps it true.

    On a Cluster each node tells of its own keys only, and nodes come and go.
    """
    if not settings.near_entries or isinstance(client, Cluster):
        return None
    return NearCache(
        settings.near_entries,
        outage_grace=settings.outage_grace,
        start=Follower(client, f"{settings.key_prefix}:e:").start,
    )


class _Files:
    """The files whose content may change while the service runs, by setting."""

    def __init__(self) -> None:
        self._watched: dict[str, WatchedFile[object]] = {}

    def secret(
        self, setting: str, secret: Secret, read: Callable[[str], str] = read_secret
    ) -> Callable[[], str]:
        """A secret's value of the moment, as *read* takes it."""
        if secret.file is None:
            return lambda: secret.value
        known = self._watched.get(setting)
        if known is not None:
            return cast("WatchedFile[str]", known).value
        file = WatchedFile(secret.file, partial(_read, read), time.monotonic)
        return self._watch(setting, file)

    def keys(self, settings: Settings) -> Callable[[], Keys] | None:
        """The API keys of the moment; None when there is no file of them."""
        if settings.api_keys_file is None:
            return None
        return self._watch("api_keys_file", _open_keys(settings.api_keys_file))

    def problems(self) -> list[str]:
        """Which files are no good at the moment, after a look at each."""
        for file in self._watched.values():
            file.value()
        return [f"{name}_bad" for name, file in self._watched.items() if file.problem]

    def _watch(self, name: str, file: WatchedFile[T]) -> Callable[[], T]:
        self._watched[name] = file  # type: ignore[assignment]  # read only
        return file.value


def _read(read: Callable[[str], str], text: str) -> str:
    try:
        return read(text)
    except ValueError as exc:
        raise BadFile(f"must be {exc}") from None


def _new_graph(settings: Settings, files: _Files) -> GraphClient:
    secret = settings.app_secret
    return GraphClient(
        f"{settings.graph_url}/{settings.graph_version}",
        token=files.secret("page_token_file", settings.page_token),
        app_secret=files.secret("app_secret_file", secret) if secret else None,
        blocked=settings.blocked_codes,
        calls_at_once=settings.graph_concurrency,
    )


def _signature_check(
    settings: Settings, files: _Files
) -> Callable[[bytes, str | None], bool]:
    """Tells of a webhook's body and its signature if one of our secrets made it."""
    several, app_secret = settings.webhook_secrets, settings.app_secret
    listed = one = None
    if several is not None:
        listed = files.secret("webhook_secrets_file", several, read_secrets)
    if app_secret is not None:
        one = files.secret("app_secret_file", app_secret)

    def check(body: bytes, signature: str | None) -> bool:
        secrets = listed().split(",") if listed else []
        return is_signed(body, signature, [*secrets, one()] if one else secrets)

    return check


def _new_doorkeeper(settings: Settings, files: _Files) -> Doorkeeper:
    return Doorkeeper(files.keys(settings), allow_anonymous=settings.allow_anonymous)


def _lifetimes(settings: Settings) -> Lifetimes:
    return Lifetimes(
        profile_ttl=settings.profile_ttl,
        stale_grace=settings.stale_grace,
        picture_margin=settings.picture_margin,
        picture_ttl_assumed=settings.picture_ttl_assumed,
        refusal_ttl={
            Reason.CONSENT_REQUIRED: settings.consent_ttl,
            Reason.BLOCKED: settings.blocked_ttl,
            Reason.NOT_FOUND: settings.not_found_ttl,
            Reason.UNAVAILABLE: settings.unavailable_ttl,
        },
    )


def _handle_errors(app: Flask) -> None:
    """Every answer that is not what was asked for is a problem body.

    Or, under a path of Meta's, an error as Meta has them.
    """
    app.register_error_handler(wire.Problem, wire.render_problem)
    app.register_error_handler(LookupFailure, wire.render_failure)
    app.register_error_handler(StoreUnavailable, wire.render_store_unavailable)

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        if graph_door.is_asked(request.path):
            return graph_door.render_http_error(error)
        return wire.render_http_error(error)

    @app.errorhandler(Exception)
    def bug(exc: Exception) -> Response:
        log.exception("a bug", extra={"request_id": g.request_id})
        if graph_door.is_asked(request.path):
            return graph_door.render_bug()
        return wire.render_problem(
            wire.Problem("internal_error", "This is a bug of ours; the log has it.")
        )


def _frame_requests(
    app: Flask, *, access_log: bool, draining: Callable[[], bool]
) -> None:
    """What every request has in common, before its route and after."""

    @app.before_request
    def enter() -> None:
        g.started = time.monotonic()
        g.request_id = wire.request_id(request.headers.get("X-Request-ID"))
        if request.routing_exception is None:
            wire.check_length(request)

    @app.after_request
    def leave(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        response.headers.update([wire.NOSNIFF])
        if draining():
            response.headers.update([wire.CLOSE])
        if access_log:
            log_access(
                method=request.method,
                route=request.url_rule.rule if request.url_rule else None,
                igsid=(request.view_args or {}).get("igsid"),
                status=response.status_code,
                cache_status=response.headers.get("Cache-Status"),
                seconds=time.monotonic() - g.started,
                request_id=g.request_id,
            )
        return response
