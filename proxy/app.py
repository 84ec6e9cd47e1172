"""create_app(): the HTTP half of the composition root; `assembly` is the other."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import redis
from flask import Flask

from proxy.assembly import build_pages, new_near_cache, new_store_client
from proxy.config.readers import read_secrets, read_signing_secret
from proxy.config.settings import Settings
from proxy.domain.failures import StoreUnavailable
from proxy.domain.profile import DEFAULT_PAGE
from proxy.fast_path.fast_path import FastPath
from proxy.fast_path.middleware import FastPathCall, FastPathMiddleware, no_fast_path
from proxy.fast_path.named_pages import NamedPageFastPaths
from proxy.fast_path.page_links import PageLinks
from proxy.graph.error_messages import error_message
from proxy.graph.webhook_payload import read_updates
from proxy.graph.webhook_signature import SignatureChecker
from proxy.live_files import IN_CLEAR, LiveFiles, pages_in_clear, read_settings
from proxy.logs import log_access
from proxy.lookup.graph import Graph
from proxy.lookup.health import REASONS, Health
from proxy.lookup.lookup import ProfileLookup
from proxy.lookup.pages import Pages
from proxy.observability import multiprocess
from proxy.observability.metrics import Metrics
from proxy.observability.store_reading import StoreReading
from proxy.observability.totals import Totals, totals_of
from proxy.page_assembly import Submit
from proxy.storage.near_cache import NearCache
from proxy.web import (
    admin,
    error_handlers,
    graph_api,
    page_prefix,
    probes,
    profiles,
    request_hooks,
    route_labels,
    webhooks,
)
from proxy.web.auth import Authenticator
from proxy.web.picture_link import PictureLinks
from proxy.web.request_body import ORDERS_AT_ONCE, WEBHOOKS_AT_ONCE, BodyReader

PAGES = "profile-proxy.pages"
"""Key in an app's extensions: its `Pages`."""

FILES = "profile-proxy.files"
"""Key in an app's extensions: its `LiveFiles`."""

BEGIN = "profile-proxy.begin"
"""Key in an app's extensions: a function that starts the background threads.

Never call it before a fork, which threads do not survive. The first request calls it;
a server that knows that no fork will follow may call it sooner.
"""

log = logging.getLogger(__name__)


def create_app(
    settings: Settings | None = None,
    *,
    client: redis.Redis | None = None,
    graph: Graph | None = None,
    graphs: Mapping[str, Graph] = {},
    submit: Submit | None = None,
    near: NearCache | None = None,
    now: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
    sleep: Callable[[float], None] = time.sleep,
    draining: Callable[[], bool] = lambda: False,
) -> Flask:
    """Build the service, from the environment if *settings* is left out.

    Then their warnings are logged too; the caller who has read them does it otherwise,
    once for all processes.

    Everything that reaches outside can be replaced: *client* is the store's, *graph*
    asks Meta (*graphs* for other Pages, by name), *submit* runs a background job,
    *near* is this process's near cache, which the caller must keep valid, *now* is
    epoch seconds, *jitter* draws from [0, 1). *draining* returns whether the server is
    about to stop. Opens no connection, so a store that is down is not an error here.

    Raises:
        SettingsError: the settings, or a file that they name, are invalid.
    """
    if settings is None:
        settings = read_settings(os.environ)
        log_warnings(settings)
    app = _new_flask()
    files, metrics = LiveFiles(), Metrics(route_labels.request_labels())
    if client is None:
        client = new_store_client(settings)
        near = near or new_near_cache(settings, client)
    metrics.near = near
    pages = build_pages(
        app,
        settings,
        files=files,
        client=client,
        near=near,
        graphs={**graphs, DEFAULT_PAGE: graph} if graph else graphs,
        metrics=metrics,
        submit=submit,
        now=now,
        jitter=jitter,
        sleep=sleep,
    )
    authenticator = _new_authenticator(settings, files)
    metrics.degraded.set([], REASONS)
    health = Health(
        pages, files.problems, metrics.degraded, is_reporter=multiprocess.is_first
    )
    service = _Service(
        settings,
        files,
        metrics,
        near,
        pages,
        health,
        authenticator,
        _new_picture_links(settings, files),
        now,
        draining,
    )
    _serve(app, service)
    return app


def log_warnings(settings: Settings) -> None:
    """Log what the *settings* allow although it is unsafe, one line each."""
    for warning in settings.warnings:
        log.warning(warning)
    for page in pages_in_clear(settings):
        log.warning(IN_CLEAR, extra={"page": page})


@dataclass(frozen=True, slots=True)
class _Service:
    """The parts that the routes and the fast paths share."""

    settings: Settings
    files: LiveFiles
    metrics: Metrics
    near: NearCache | None
    pages: Pages
    health: Health
    authenticator: Authenticator
    links: PictureLinks | None
    now: Callable[[], float]
    draining: Callable[[], bool]

    def begin(self) -> None:
        """Start the background threads, unless they run already.

        A process by itself, such as a test, looks only when it is asked.
        """
        if multiprocess.shared_folder() is not None:
            self.health.keep_looking()
        self.metrics.keep_folding()
        self.files.keep_reading()
        if self.near is not None:
            self.near.start()

    def totals(self, page: str) -> Totals:
        """Return the counts of this instance, about one Page where they have one."""
        self.metrics.keys.add(self.authenticator.key_names())
        return totals_of(self.metrics, page)

    def notice_link_secret(self) -> None:
        """Drop the bodies in memory whose picture links have an earlier signature."""
        if self.links and self.links.secret_has_changed() and self.near:
            self.near.invalidate(None)

    def exposition(self) -> bytes:
        """Return the metrics in Prometheus's text format, gates included."""
        self.health.look()
        self.metrics.keys.add(self.authenticator.key_names())
        try:
            gates = {name: p.gate_state() for name, p in self.pages.all().items()}
        except StoreUnavailable:
            return self.metrics.exposition(None)
        return self.metrics.exposition(
            {
                name: StoreReading(
                    {state.cause: state.closed_for for state in gate.causes},
                    gate.usage_percent,
                )
                for name, gate in gates.items()
            }
        )


def _new_flask() -> Flask:
    app = Flask("proxy", static_folder=None)
    # Merging slashes would redirect, in HTML and to the caller's own Host header.
    app.url_map.merge_slashes = False
    # Flask's automatic OPTIONS response would not ask for an API key.
    app.config.update(PROVIDE_AUTOMATIC_OPTIONS=False)
    return app


def _new_authenticator(settings: Settings, files: LiveFiles) -> Authenticator:
    return Authenticator(files.keys(settings), allow_anonymous=settings.allow_anonymous)


def _new_picture_links(settings: Settings, files: LiveFiles) -> PictureLinks | None:
    secret = settings.picture_link_secret
    if secret is None:
        return None
    read = read_signing_secret
    return PictureLinks(files.secret("picture_link_secret_file", secret, read))


def _serve(app: Flask, service: _Service) -> None:
    """Wire *service* into *app*: routes, hooks, error handlers and fast paths."""
    app.extensions[PAGES] = service.pages
    app.extensions[FILES] = service.files
    app.extensions[BEGIN] = service.begin
    app.before_request(service.begin)
    request_hooks.register(
        app,
        service.metrics.requests,
        access_log=service.settings.access_log,
        draining=service.draining,
    )
    _register_routes(app, service)
    error_handlers.register(app)
    app.wsgi_app = FastPathMiddleware(_new_fast_paths(service), app.wsgi_app)  # type: ignore[method-assign]


def _register_routes(app: Flask, service: _Service) -> None:
    pages, authenticator, now = service.pages, service.authenticator, service.now
    for blueprint in (
        profiles.blueprint(pages, authenticator, now, service.links),
        graph_api.blueprint(pages, authenticator, error_message, now),
        admin.blueprint(
            pages,
            authenticator,
            now,
            service.totals,
            service.settings.key_prefix,
        ),
    ):
        page_prefix.register(app, blueprint)
    app.register_blueprint(
        admin.blueprint_of_pages(pages, authenticator, BodyReader(ORDERS_AT_ONCE))
    )
    app.register_blueprint(
        probes.blueprint(service.health.look, service.draining, service.exposition)
    )
    _register_webhooks(app, service)


def _register_webhooks(app: Flask, service: _Service) -> None:
    """Register the routes that Meta calls, if a verify token is configured."""
    settings, files = service.settings, service.files
    if settings.webhook_verify_token is None:
        return
    app.register_blueprint(
        webhooks.blueprint(
            service.pages,
            BodyReader(WEBHOOKS_AT_ONCE),
            service.metrics,
            verify_token=files.secret(
                "webhook_verify_token_file", settings.webhook_verify_token
            ),
            is_signed=SignatureChecker(_webhook_secrets(settings, files)).is_signed,
            read_updates=read_updates,
            prefetch=settings.webhook_prefetch,
        )
    )


def _webhook_secrets(settings: Settings, files: LiveFiles) -> Callable[[], list[str]]:
    """Return a function that returns every secret that may sign a webhook now.

    The app secrets of named Pages are included: each Page may belong to another app.
    """
    several, app_secret = settings.webhook_secrets, settings.app_secret
    listed = one = None
    if several is not None:
        listed = files.secret("webhook_secrets_file", several, read_secrets)
    if app_secret is not None:
        one = files.secret("app_secret_file", app_secret)

    def secrets() -> list[str]:
        current = listed().split(",") if listed else []
        if one:
            current.append(one())
        return [*current, *files.app_secrets()]

    return secrets


def _new_fast_paths(service: _Service) -> FastPathCall:
    """Build the default Page's fast path, in front of those of the named Pages.

    Each exists only if there are such Pages.
    """
    fast_path: FastPathCall = no_fast_path

    def new_fast_path(name: str, page: ProfileLookup) -> FastPath:
        return _new_fast_path(service, name, page)

    if service.settings.pages_file:
        fast_path = NamedPageFastPaths(service.pages, new_fast_path)
    if service.pages.default:
        fast_path = _new_fast_path(
            service, DEFAULT_PAGE, service.pages.default, next_fast_path=fast_path
        )
    return fast_path


def _new_fast_path(
    service: _Service,
    name: str,
    page: ProfileLookup,
    *,
    next_fast_path: FastPathCall = no_fast_path,
) -> FastPath:
    def on_tick() -> None:
        service.begin()
        page.notice_token()
        service.notice_link_secret()

    is_logged = service.settings.access_log
    return FastPath(
        page.store,
        service.authenticator,
        now=service.now,
        draining=service.draining,
        on_tick=on_tick,
        metrics=service.metrics.of_page(name),
        log_access=partial(log_access, page=name) if is_logged else None,
        links=PageLinks(service.links, name) if service.links else None,
        next_fast_path=next_fast_path,
    )
