"""The routes that need no key: health, readiness, metrics and openapi.yaml."""

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
    """Build the routes; *degraded_by* returns why the service is degraded.

    *draining* returns whether the service is about to stop, *exposition* the metrics
    in Prometheus's text format.
    """
    bp = Blueprint("probes", __name__)
    openapi = resources.files(__package__).joinpath("openapi.yaml").read_bytes()

    @bp.get("/healthz")
    def healthz() -> Response:
        """Return 200: the process is alive."""
        return responses.render_ok(render_alive())

    @bp.get("/readyz")
    def readyz() -> Response:
        """Return ``ok`` or ``degraded`` while it serves, and 503 while it drains."""
        reasons = degraded_by()
        if draining():
            return render_draining(reasons)
        return responses.render_ok(render_health(reasons))

    @bp.get("/metrics")
    def metrics() -> Response:
        """Return the metrics, summed over the workers of this instance."""
        response = Response(exposition(), content_type=CONTENT_TYPE)
        response.headers["Cache-Control"] = "no-store"
        return response

    @bp.get("/openapi.yaml")
    def openapi_yaml() -> Response:
        """Return the description of this API."""
        response = Response(openapi, mimetype="application/yaml")
        response.headers["Cache-Control"] = "no-store"
        return response

    return bp


def render_alive() -> dict[str, Any]:
    """Return the body of a liveness check."""
    return {"status": "ok"}


def render_health(reasons: list[str]) -> dict[str, Any]:
    """Return the body of a readiness check, with the *reasons* of a degradation."""
    return {"status": "degraded" if reasons else "ok", "reasons": reasons}


def render_draining(reasons: list[str]) -> Response:
    """Tell load balancers to choose another instance: this one is about to stop."""
    response = responses.json_response(503, {"status": "draining", "reasons": reasons})
    response.headers["Retry-After"] = "1"
    return response
