"""The routes for machines, which need no key: is it alive, is it well, how much?"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

from flask import Blueprint, Response

from proxy.observability.metrics import CONTENT_TYPE
from proxy.web import responses


def blueprint(
    degraded_by: Callable[[], list[str]],
    draining: Callable[[], bool],
    exposition: Callable[[], bytes],
) -> Blueprint:
    """The routes; *degraded_by* tells the reasons why all is not well.

    *draining* tells whether the service is about to stop, and *exposition* is the
    metrics in Prometheus's words.
    """
    bp = Blueprint("probes", __name__)
    openapi = resources.files(__package__).joinpath("openapi.yaml").read_bytes()

    @bp.get("/healthz")
    def healthz() -> Response:
        """The process answers."""
        return responses.render_ok(render_alive())

    @bp.get("/readyz")
    def readyz() -> Response:
        """``ok``, or ``degraded`` and why: it serves. 503 and ``draining``: go away."""
        reasons = degraded_by()
        if draining():
            return render_draining(reasons)
        return responses.render_ok(render_health(reasons))

    @bp.get("/metrics")
    def metrics() -> Response:
        """What was counted, summed over this instance's workers."""
        response = Response(exposition(), content_type=CONTENT_TYPE)
        response.headers["Cache-Control"] = "no-store"
        return response

    @bp.get("/openapi.yaml")
    def openapi_yaml() -> Response:
        """This API, for machines."""
        response = Response(openapi, mimetype="application/yaml")
        response.headers["Cache-Control"] = "no-store"
        return response

    return bp


def render_alive() -> dict[str, Any]:
    """The process answers, and that is all it says."""
    return {"status": "ok"}


def render_health(reasons: list[str]) -> dict[str, Any]:
    """Whether all is well, and if not, why."""
    return {"status": "degraded" if reasons else "ok", "reasons": reasons}


def render_draining(reasons: list[str]) -> Response:
    """It is about to stop: whoever chooses an instance should choose another."""
    response = responses.json_response(503, {"status": "draining", "reasons": reasons})
    response.headers["Retry-After"] = "1"
    return response
