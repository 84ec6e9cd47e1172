"""create_app(): puts the pieces together; nothing else builds anything."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from functools import partial

import redis
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from proxy.assembly import build_pages, new_near_cache, new_store_client
from proxy.config.readers import read_secrets
from proxy.config.settings import Settings
from proxy.domain.failures import LookupFailure, StoreUnavailable
from proxy.domain.profile import DEFAULT_PAGE
from proxy.fast_path import named_pages
from proxy.fast_path.fast_path import FastPath
from proxy.fast_path.middleware import FastPathCall, FastPathMiddleware, no_fast_path
from proxy.graph.error_messages import words_of
from proxy.graph.webhook_payload import is_signed, read_updates
from proxy.live_files import LiveFiles, read_settings
from proxy.logs import log_access
from proxy.lookup.fetcher import Graph
from proxy.lookup.lookup import ProfileLookup
from proxy.lookup.pages import UnknownPage
from proxy.observability.metrics import Metrics, StoreReading
from proxy.observability.totals import totals_of
from proxy.page_assembly import Submit
from proxy.storage.near_cache import NearCache
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

PAGES = "profile-proxy.lookup.pages"
"""Where an app's extensions have its Pages."""

BEGIN = "profile-proxy.begin"
"""Where an app's extensions have what begins the threads of a process that serves.

Never before a fork, which threads do not survive: with the first request at the latest,
and sooner by a server that knows of no fork to come.
"""

log = logging.getLogger(__name__)


def create_app(
    settings: Settings | None = None,
    *,
    client: redis.Redis | None = None,
    graph: Graph | None = None,
    graphs: Mapping[str, Graph] = {},
    later: Submit | None = None,
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
    files = LiveFiles()
    if client is None:
        client = new_store_client(settings)
        near = near or new_near_cache(settings, client)
    metrics = Metrics()
    metrics.near = near
    pages = build_pages(
        app,
        settings,
        files=files,
        client=client,
        near=near,
        graphs={**graphs, DEFAULT_PAGE: graph} if graph else graphs,
        metrics=metrics,
        submit=later,
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
        files.keep_reading()
        if near is not None:
            near.start()

    def new_fast_path(
        name: str, page: ProfileLookup, next_fast_path: FastPathCall = no_fast_path
    ) -> FastPath:
        def on_tick() -> None:
            begin()
            page.notice_token()

        return FastPath(
            page.store,
            authenticator,
            now=now,
            draining=draining,
            on_tick=on_tick,
            answers=metrics.of_page(name).answers,
            log_access=named_pages.log_access_of(name) if settings.access_log else None,
            next_fast_path=next_fast_path,
        )

    app.extensions[BEGIN] = begin
    app.before_request(begin)
    bodies = BodyReader()
    for each in (
        profiles.blueprint(pages, authenticator, now),
        graph_api.blueprint(pages, authenticator, words_of, now),
        admin.blueprint(pages, authenticator, now, partial(totals_of, metrics)),
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
        fast_path = new_fast_path(DEFAULT_PAGE, pages.default, next_fast_path=fast_path)
    app.wsgi_app = FastPathMiddleware(fast_path, app.wsgi_app)  # type: ignore[method-assign]
    for warning in settings.warnings:
        log.warning(warning)
    return app


def _signature_check(
    settings: Settings, files: LiveFiles
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


def _new_authenticator(settings: Settings, files: LiveFiles) -> Authenticator:
    return Authenticator(files.keys(settings), allow_anonymous=settings.allow_anonymous)


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
            Problem(
                "internal_error",
                "This is a bug in the service. Its log has the details, under the"
                " X-Request-ID of this response.",
            )
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
