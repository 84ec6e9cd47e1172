"""The routes that Meta calls: the handshake, and updates about messages.

They need neither an API key nor a local address: Meta calls from outside, through a
gateway. The verify token or a signature authenticates it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable

from flask import Blueprint, Response, request

from proxy.domain.failures import Overloaded, StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.domain.webhook_update import Update, UpdateResult
from proxy.lookup.pages import Pages
from proxy.observability.metrics import Metrics
from proxy.web import responses
from proxy.web.problems import Problem
from proxy.web.request_body import WEBHOOKS, BodyReader

_CHALLENGE = re.compile(r"[!-~]{1,256}", re.ASCII)


def blueprint(
    pages: Pages,
    bodies: BodyReader,
    metrics: Metrics,
    *,
    verify_token: Callable[[], str],
    is_signed: Callable[[bytes, str | None], bool],
    read_updates: Callable[[bytes], list[Update] | None],
    prefetch: bool,
) -> Blueprint:
    """Build the routes. *is_signed* checks a body against its signature header.

    With *prefetch*, the profiles of senders are fetched before a caller needs them.
    """
    bp = Blueprint(WEBHOOKS, __name__, url_prefix="/webhooks")

    @bp.get("/instagram")
    def verify() -> Response:
        """Answer the handshake, which Meta sends when an operator sets this URL there.

        Source: https://developers.facebook.com/docs/graph-api/webhooks/getting-started
        """
        given = request.args.get("hub.verify_token", "")
        is_equal = hmac.compare_digest(
            given.encode("utf-8", "surrogatepass"), verify_token().encode()
        )
        if request.args.get("hub.mode") != "subscribe" or not is_equal:
            raise Problem(
                "invalid_verify_token",
                "hub.mode must be subscribe, and hub.verify_token must equal the verify"
                " token that is configured here.",
            )
        challenge = request.args.get("hub.challenge", "")
        if _CHALLENGE.fullmatch(challenge) is None:
            raise Problem(
                "invalid_request",
                "Invalid hub.challenge: it must be 1 to 256 printable ASCII"
                " characters without spaces.",
            )
        return render_text(challenge)

    @bp.post("/instagram")
    def receive() -> Response:
        """Delete cached refusals about every sender of a message.

        After a 200, no process serves such a refusal.
        """
        body = bodies.read_bytes(request)
        if not is_signed(body, request.headers.get("X-Hub-Signature-256")):
            metrics.webhooks["refused"] += 1
            raise Problem(
                "invalid_signature",
                "X-Hub-Signature-256 is missing, or matches the body under none of the"
                " secrets that are configured here.",
            )
        updates = read_updates(body)
        if updates is None:
            # Signed by Meta, which would send the same bytes again after an error.
            metrics.webhooks["unreadable"] += 1
            return responses.render_ok(render_updates(0, 0))
        updates, people = _senders_by_page(updates, pages)
        try:
            pages.on_message_received(people, prefetch=prefetch)
        except (StoreUnavailable, Overloaded):
            metrics.webhooks["failed"] += 1
            raise
        metrics.webhooks["accepted"] += 1
        metrics.count_updates(updates)
        senders = sum(map(len, people.values()))
        return responses.render_ok(render_updates(len(updates), senders))

    return bp


def render_text(text: str) -> Response:
    """Render *text* as plain text, unchanged."""
    response = Response(text, mimetype="text/plain")
    response.headers["Cache-Control"] = "no-store"
    return response


def render_updates(updates: int, senders: int) -> dict[str, int]:
    """Return how many updates a webhook had, and how many different senders."""
    return {"updates": updates, "writers": senders}


def _senders_by_page(
    updates: list[Update], pages: Pages
) -> tuple[list[Update], dict[str, list[Igsid]]]:
    """Return the updates, and the senders by Page, each of them once.

    An update for an account without a Page here gets the result NO_PAGE. One from an
    account of its own Page, under another id than the webhook's, is IGNORED.
    """
    assigned: list[Update] = []
    people: dict[str, dict[Igsid, None]] = {}
    for update in updates:
        if (sender := update.sender) is not None:
            page = pages.of_account(update.account)
            if page is None:
                update = update._replace(result=UpdateResult.NO_PAGE, sender=None)
            elif pages.is_account_of(page, sender):
                update = update._replace(result=UpdateResult.IGNORED, sender=None)
            else:
                people.setdefault(page, {})[sender] = None
        assigned.append(update)
    return assigned, {page: list(senders) for page, senders in people.items()}
