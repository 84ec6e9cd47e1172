"""The routes for internal services: a profile, a batch, a picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flask import Blueprint, Response, g, request

from proxy.domain.failures import LookupFailure, TooManyMisses
from proxy.lookup.pages import Pages
from proxy.web import batch, page_prefix, picture, representations, request_params
from proxy.web.auth import LINK_CLIENT, Authenticator, Client, Scope
from proxy.web.picture_link import (
    EXPIRES,
    LINKS_USED_UP,
    SIGNATURE,
    LinkOf,
    PictureLinks,
)
from proxy.web.request_params import SNAPSHOT


def blueprint(
    pages: Pages,
    authenticator: Authenticator,
    now: Callable[[], float],
    links: PictureLinks | None = None,
) -> Blueprint:
    """Build the routes; *now* is epoch seconds. None: there are no picture links."""
    bp = Blueprint("profiles", __name__)

    def link_of() -> LinkOf | None:
        return partial(links.link, g.page, now()) if links else None

    page_prefix.prepare_requests(
        bp,
        pages,
        authenticator,
        Scope.READ,
        client_of_link=lambda: _client_of_link(links, now()) if links else None,
    )

    @bp.get("/profiles/<igsid>")
    def read_profile(igsid: str) -> Response:
        """Return one person's profile.

        200 and the profile, or a problem: 400 ``invalid_igsid`` or
        ``invalid_fields``, 403 ``consent_required`` or ``blocked``, 404
        ``not_found`` or ``unavailable``, and every failure in ``problems.FAILURES``.
        """
        person = request_params.read_igsid(igsid)
        fields = request_params.read_fields(request.args)
        answer = g.lookup.find(
            person,
            client=g.client.name,
            snapshot=request.environ.get(SNAPSHOT),
            directives=request_params.read_directives(
                request.headers.get("Cache-Control")
            ),
        )
        return representations.render(answer, fields, link_of(), now=now())

    @bp.get("/profiles")
    def read_profiles() -> Response:
        """Return a batch of profiles.

        200 even if every result is a problem, which is then among the ``problems`` of
        the batch. Or 400 ``invalid_ids`` or ``invalid_fields`` for all of it.
        """
        ids = request_params.read_ids(request.args)
        fields = request_params.read_fields(request.args)
        found = g.lookup.find_many(
            list(filter(request_params.is_igsid, ids)),
            client=g.client.name,
            directives=request_params.read_directives(
                request.headers.get("Cache-Control")
            ),
        )
        return batch.render_batch(ids, found, fields, link_of())

    @bp.get("/profiles/<igsid>/picture")
    def read_picture(igsid: str) -> Response:
        """Redirect to one person's picture.

        Or a problem: as for the profile, and 400 ``invalid_fallback``, 403
        ``bad_signature`` of a link and 404 ``no_picture``. With ``fallback=initials``,
        an SVG replaces every problem that the request did not cause.
        """
        person = request_params.read_igsid(igsid)
        fallback = picture.read_fallback(request.args.getlist("fallback"))
        try:
            answer = g.lookup.find(
                person,
                client=g.client.name,
                snapshot=request.environ.get(SNAPSHOT),
                directives=request_params.read_directives(
                    request.headers.get("Cache-Control")
                ),
            )
        except LookupFailure as failure:
            if isinstance(failure, TooManyMisses) and g.client is LINK_CLIENT:
                failure.what = LINKS_USED_UP
            if not fallback:
                raise
            return picture.render_failure(person, failure)
        return picture.render(answer, fallback=fallback, now=now())

    return bp


def _client_of_link(links: PictureLinks, now: float) -> Client | None:
    """Return the client of a picture link, if the request is one.

    The link alone decides then, whatever key is sent with it, and from wherever.

    Raises:
        Problem: ``bad_signature``.
    """
    is_picture = (request.endpoint or "").endswith(".read_picture")
    if not is_picture or {EXPIRES, SIGNATURE}.isdisjoint(request.args):
        return None
    links.check(
        g.page,
        (request.view_args or {})["igsid"],
        expires=request.args.getlist(EXPIRES),
        signature=request.args.getlist(SIGNATURE),
        now=now,
    )
    return LINK_CLIENT
