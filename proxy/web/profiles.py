"""The routes for internal services: a profile, a batch, a picture."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, g, request

from proxy.domain.failures import LookupFailure
from proxy.lookup.pages import Pages
from proxy.web import batch, page_prefix, picture, representations, request_params
from proxy.web.auth import Authenticator, Scope
from proxy.web.request_params import SNAPSHOT


def blueprint(
    pages: Pages, authenticator: Authenticator, now: Callable[[], float]
) -> Blueprint:
    """Build the routes; *now* is epoch seconds."""
    bp = Blueprint("profiles", __name__)
    page_prefix.prepare_requests(bp, pages, authenticator, Scope.READ)

    @bp.get("/profiles/<igsid>")
    def read_profile(igsid: str) -> Response:
        """Return one person's profile.

        200 and the profile, or a problem: 400 ``invalid_igsid`` or
        ``invalid_fields``, 403 ``consent_required`` or ``blocked``, 404
        ``not_found`` or ``unavailable``, and every failure in ``problems.FAILURES``.
        """
        person = request_params.read_igsid(igsid)
        fields = request_params.read_fields(request.args.getlist("fields"))
        answer = g.lookup.find(
            person,
            client=g.client.name,
            snapshot=request.environ.get(SNAPSHOT),
            directives=request_params.read_directives(
                request.headers.get("Cache-Control")
            ),
        )
        return representations.render(answer, fields, now=now())

    @bp.get("/profiles")
    def read_profiles() -> Response:
        """Return a batch of profiles.

        200 even if every result is a problem, which is then among the ``problems`` of
        the batch. Or 400 ``invalid_ids`` or ``invalid_fields`` for all of it.
        """
        ids = request_params.read_ids(request.args.getlist("ids"))
        fields = request_params.read_fields(request.args.getlist("fields"))
        found = g.lookup.find_many(
            list(filter(request_params.is_igsid, ids)),
            client=g.client.name,
            directives=request_params.read_directives(
                request.headers.get("Cache-Control")
            ),
        )
        return batch.render_batch(ids, found, fields)

    @bp.get("/profiles/<igsid>/picture")
    def read_picture(igsid: str) -> Response:
        """Redirect to one person's picture.

        Or a problem: as for the profile, and 400 ``invalid_fallback`` and 404
        ``no_picture``. With ``fallback=initials``, an SVG replaces every problem that
        the request did not cause.
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
            if not fallback:
                raise
            return picture.render_failure(person, failure)
        return picture.render(answer, fallback=fallback, now=now())

    return bp
