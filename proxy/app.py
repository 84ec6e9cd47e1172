"""create_app(): puts the pieces together; nothing else builds anything."""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import NamedTuple, cast

import redis
from flask import Flask, Response, g, request
from flask_caching import Cache
from werkzeug.exceptions import HTTPException

from proxy.config.pages_file import BadPages, PageSettings, read_pages
from proxy.config.settings import (
    EMBEDDED,
    Secret,
    Settings,
    SettingsError,
    read_secrets,
)
from proxy.coordination.bulkhead import Bulkhead
from proxy.coordination.gate import Gate
from proxy.coordination.single_flight import Flight, lease_for
from proxy.coordination.task_queue import TaskQueue
from proxy.domain.backoff import backoffs
from proxy.domain.failures import LookupFailure, StoreUnavailable
from proxy.domain.freshness import Lifetimes
from proxy.domain.profile import DEFAULT_PAGE, Reason
from proxy.fast_path import named_pages
from proxy.fast_path.fast_path import FastPath
from proxy.fast_path.middleware import FastPathCall, FastPathMiddleware, no_fast_path
from proxy.graph.client import GraphClient
from proxy.graph.error_messages import words_of
from proxy.graph.webhook_payload import is_signed, read_updates
from proxy.live_files import Files, read_settings
from proxy.logs import log_access
from proxy.lookup.lookup import Graph, ProfileLookup
from proxy.lookup.pages import Named, Pages, UnknownPage
from proxy.observability.metrics import Metrics, StoreReading
from proxy.storage.client_factory import new_client
from proxy.storage.cluster import Cluster
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.near_cache import InvalidationListener, NearCache
from proxy.web import (
    admin,
    graph_api,
    page_prefix,
    probes,
    profiles,
    request_params,
    responses,
    webhooks,
)
from proxy.web.auth import Authenticator
from proxy.web.problems import Problem
from proxy.web.request_body import BodyReader, check_length

SPARE_CONNECTIONS = 32
"""Connections to the store beyond one for each thread that serves."""

PAGES = "profile-proxy.lookup.pages"
"""Where an app's extensions have its Pages."""

BEGIN = "profile-proxy.begin"
"""Where an app's extensions have what begins the threads of a process that serves.

Never before a fork, which threads do not survive: with the first request at the latest,
and sooner by a server that knows of no fork to come.
"""

SPARE_THREADS = 64
"""Threads of a process that never wait for Meta, so that hits find one."""

Later = Callable[[Hashable, Callable[[], None]], bool]
"""Runs a job in the background, unless one of that name waits there already."""

NewPage = Callable[[str, Callable[[], Graph]], ProfileLookup]
"""Makes a Page by its name, with what makes its client if there is to be one."""

log = logging.getLogger(__name__)


def create_app(
    settings: Settings | None = None,
    *,
    client: redis.Redis | None = None,
    graph: Graph | None = None,
    graphs: Mapping[str, Graph] = {},
    later: Later | None = None,
    near: NearCache | None = None,
    now: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
    sleep: Callable[[float], None] = time.sleep,
    draining: Callable[[], bool] = lambda: False,
) -> Flask:
    """Build the service, from the environment if *settings* is left out.

    Whatever reaches outside can be replaced here: *client* is the store's, *graph*
    asks Meta (*graphs* for other Pages, by name), *later* runs a job in the
    background, *near* is this process's own cache and whoever gives it keeps it
    true, *now* tells the time in epoch seconds, *jitter* draws from [0, 1) and
    *sleep* waits. *draining* tells whether the server is about to stop. Opens no
    connection; a store that is away is a state to live with, not an error.

    Raises:
        SettingsError: the settings, or a file they name, are no good.
    """
    settings = settings or read_settings(os.environ)
    app = Flask("proxy", static_folder=None)
    # A redirect to one slash would be HTML, and to whatever the caller calls us.
    app.url_map.merge_slashes = False
    # An OPTIONS that Flask answers by itself would ask for no key.
    app.config.update(PROVIDE_AUTOMATIC_OPTIONS=False)
    files = Files()
    if client is None:
        client = _new_client(settings)
        near = near or _new_near(settings, client)
    metrics = Metrics()
    metrics.near = near
    pages = new_pages(
        app,
        settings,
        files=files,
        client=client,
        near=near,
        graphs={**graphs, DEFAULT_PAGE: graph} if graph else graphs,
        metrics=metrics,
        later=later,
        now=now,
        jitter=jitter,
        sleep=sleep,
    )
    app.extensions[PAGES] = pages
    authenticator = _new_authenticator(settings, files)

    def degraded_by() -> list[str]:
        reasons = files.problems()
        try:
            pages.any.check_store()
            reasons += pages.any.store_warnings()
        except StoreUnavailable:
            reasons.append("store_unavailable")
        return reasons

    def exposition() -> bytes:
        try:
            gates = {name: page.gate_state() for name, page in pages.all().items()}
        except StoreUnavailable:
            return metrics.exposition(None)
        return metrics.exposition(
            {
                name: StoreReading(
                    {state.cause: state.closed_for for state in gate.causes},
                    gate.usage_percent,
                )
                for name, gate in gates.items()
            }
        )

    def begin() -> None:
        metrics.keep_folding()
        files.keep_looking()
        if near is not None:
            near.follow()

    def new_fast_path(
        name: str, page: ProfileLookup, behind: FastPathCall = no_fast_path
    ) -> FastPath:
        def each_tick() -> None:
            begin()
            page.notice_token()

        return FastPath(
            page.store,
            authenticator,
            now=now,
            draining=draining,
            each_tick=each_tick,
            answers=metrics.of_page(name).answers,
            log_access=named_pages.log_access_of(name) if settings.access_log else None,
            behind=behind,
        )

    app.extensions[BEGIN] = begin
    app.before_request(begin)
    bodies = BodyReader()
    for each in (
        profiles.blueprint(pages, authenticator, now),
        graph_api.blueprint(pages, authenticator, words_of, now),
        admin.blueprint(pages, authenticator, now, metrics.totals),
    ):
        app.register_blueprint(each)
        app.register_blueprint(
            each,
            name=f"{each.name}_of_page",
            url_prefix=f"{page_prefix.PREFIX}{each.url_prefix or ''}",
        )
    app.register_blueprint(admin.flush_blueprint(pages, authenticator, bodies))
    app.register_blueprint(probes.blueprint(degraded_by, draining, exposition))
    if settings.webhook_verify_token is not None:
        app.register_blueprint(
            webhooks.blueprint(
                pages,
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
    fast_path: FastPathCall = no_fast_path
    if settings.pages_file:
        fast_path = named_pages.NamedPageFastPaths(pages, new_fast_path)
    if pages.default:
        fast_path = new_fast_path(DEFAULT_PAGE, pages.default, behind=fast_path)
    app.wsgi_app = FastPathMiddleware(fast_path, app.wsgi_app)  # type: ignore[method-assign]
    for warning in settings.warnings:
        log.warning(warning)
    return app


def new_pages(
    app: Flask,
    settings: Settings,
    *,
    files: Files | None = None,
    client: redis.Redis | None = None,
    near: NearCache | None = None,
    graphs: Mapping[str, Graph] = {},
    metrics: Metrics | None = None,
    later: Later | None = None,
    now: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
    sleep: Callable[[float], None] = time.sleep,
) -> Pages:
    """Build what answers questions, for the service or for a command.

    *graphs*, by Page, ask Meta in place of a client of ours.

    Raises:
        SettingsError: the settings, or a file they name, are no good.
    """
    client = client or _new_client(settings)
    files = files or Files()
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
    later = later or TaskQueue().submit
    every_store = EntryStore(
        cast(ProfileCache, cache.cache),
        DEFAULT_PAGE,
        near=near,
        count_error=metrics.count_store_error,
        sleep=sleep,
    )
    every_bulkhead = Bulkhead(
        seats=settings.graph_concurrency, waiters=settings.threads - SPARE_THREADS
    )

    def new_page(name: str, new_graph: Callable[[], Graph]) -> ProfileLookup:
        """A Page with all that is its own, on what the Pages of a process share."""
        store = every_store.of_page(name)
        bulkhead = every_bulkhead.of_page()
        return ProfileLookup(
            store=store,
            flight=Flight(
                store,
                graph_timeout=settings.graph_timeout,
                bulkhead=bulkhead,
                now=now,
                monotonic=time.monotonic,
                sleep=sleep,
            ),
            gate=Gate(
                cast(ProfileCache, cache.cache),
                name,
                guard=store.guard,
                backoffs=backoffs(settings.token_retry),
                probe_for=lease_for(settings.graph_timeout),
                usage_soft=settings.usage_soft,
                misses_per_minute=settings.misses_per_minute,
            ),
            bulkhead=bulkhead,
            graph=graphs.get(name) or new_graph(),
            metrics=metrics.of_page(name),
            later=later if name == DEFAULT_PAGE else _of_page(name, later),
            lifetimes=_lifetimes(settings),
            usage_hard=settings.usage_hard,
            now=now,
            monotonic=time.monotonic,
            jitter=jitter,
        )

    default = None
    if token := settings.page_token:
        new_graph = partial(
            _new_graph, settings, DEFAULT_PAGE, files, token, settings.app_secret
        )
        default = new_page(DEFAULT_PAGE, new_graph)
    named = files.pages(settings, _NamedPages(settings, new_page))
    return Pages(default, named) if named else Pages(default)


def _of_page(name: str, later: Later) -> Later:
    """*later*, for one Page: two Pages may have jobs about the same number."""
    return lambda key, job: later(("page", name, key), job)


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
        start=InvalidationListener(client, f"{settings.key_prefix}:e:").start,
    )


class _Made(NamedTuple):
    """A Page that is served, what it was made of, and its files."""

    of: PageSettings
    lookup: ProfileLookup
    files: Files
    app_secret: Callable[[], str] | None


class _NamedPages:
    """The Pages of the file, each made anew when what the file says of it changes.

    A Page that is made anew goes on where it was: all that has to be remembered of
    it is in the store, and a flight under way ends where it began.
    """

    def __init__(self, settings: Settings, new_page: NewPage) -> None:
        self._settings = settings
        self._new_page = new_page
        self._made: dict[str, _Made] = {}

    def read(self, text: str) -> Named:
        """The Pages of a file that has just been read.

        Raises:
            BadFile: it is no good, and all Pages are as before.
        """
        told = read_pages(text)
        if not told and self._settings.page_token is None:
            raise BadPages(["holds no Page, and PROXY_PAGE_TOKEN is not set"])
        made = {name: self._make(name, page) for name, page in told.items()}
        self._made = made
        return Named(
            {name: page.lookup for name, page in made.items()},
            {account: name for name, page in told.items() for account in page.ids},
        )

    def app_secrets(self) -> list[str]:
        return [made.app_secret() for made in self._made.values() if made.app_secret]

    def problems(self) -> list[str]:
        """Which files of which Page are no good, as reasons."""
        return [
            f"{problem}:{name}"
            for name, made in self._made.items()
            for problem in made.files.problems()
        ]

    def _make(self, name: str, page: PageSettings) -> _Made:
        known = self._made.get(name)
        if known and known.of == page:
            return known
        if page.is_in_clear:
            log.warning("url is http: the token goes in clear", extra={"page": name})
        files, secret = Files(), page.app_secret
        new_graph = partial(
            _new_graph, self._settings, name, files, page.token, secret, page.url
        )
        return _Made(
            page,
            self._new_page(name, new_graph),
            files,
            files.secret("app_secret_file", secret) if secret else None,
        )


def _new_graph(
    settings: Settings,
    page: str,
    files: Files,
    token: Secret,
    secret: Secret | None,
    url: str | None = None,
) -> GraphClient:
    return GraphClient(
        f"{url or settings.graph_url}/{settings.graph_version}",
        token=files.secret("page_token_file", token),
        app_secret=files.secret("app_secret_file", secret) if secret else None,
        blocked=settings.blocked_codes,
        calls_at_once=settings.graph_concurrency,
        page=page,
    )


def _signature_check(
    settings: Settings, files: Files
) -> Callable[[bytes, str | None], bool]:
    """Tells of a webhook's body and its signature if one of our secrets made it.

    Those of Pages among them: each may be of another app.
    """
    several, app_secret = settings.webhook_secrets, settings.app_secret
    listed = one = None
    if several is not None:
        listed = files.secret("webhook_secrets_file", several, read_secrets)
    if app_secret is not None:
        one = files.secret("app_secret_file", app_secret)

    def check(body: bytes, signature: str | None) -> bool:
        secrets = listed().split(",") if listed else []
        if one:
            secrets.append(one())
        return is_signed(body, signature, [*secrets, *files.app_secrets()])

    return check


def _new_authenticator(settings: Settings, files: Files) -> Authenticator:
    return Authenticator(files.keys(settings), allow_anonymous=settings.allow_anonymous)


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
    app.register_error_handler(Problem, responses.render_problem)
    app.register_error_handler(LookupFailure, responses.render_failure)
    app.register_error_handler(StoreUnavailable, responses.render_store_unavailable)
    app.register_error_handler(UnknownPage, page_prefix.render_unknown_page)

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        if graph_api.is_asked(request.path):
            return graph_api.render_http_error(error)
        return responses.render_http_error(error)

    @app.errorhandler(Exception)
    def bug(exc: Exception) -> Response:
        log.exception("a bug", extra={"request_id": g.request_id})
        if graph_api.is_asked(request.path):
            return graph_api.render_bug()
        return responses.render_problem(
            Problem("internal_error", "This is a bug of ours; the log has it.")
        )


def _frame_requests(
    app: Flask, *, access_log: bool, draining: Callable[[], bool]
) -> None:
    """What every request has in common, before its route and after."""

    @app.before_request
    def enter() -> None:
        g.started = time.monotonic()
        g.request_id = request_params.request_id(request.headers.get("X-Request-ID"))
        if request.routing_exception is None:
            check_length(request)

    @app.after_request
    def leave(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        response.headers.update([responses.NOSNIFF])
        if draining():
            response.headers.update([responses.CLOSE])
        if access_log:
            log_access(
                method=request.method,
                route=request.url_rule.rule if request.url_rule else None,
                igsid=(request.view_args or {}).get("igsid"),
                status=response.status_code,
                page=g.get("page"),
                cache_status=response.headers.get("Cache-Status"),
                seconds=time.monotonic() - g.started,
                request_id=g.request_id,
            )
        return response
