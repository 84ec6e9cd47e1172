"""The routes that Meta calls: who we are, and who has written to the business.

No API key is asked for, and no local address: Meta comes from outside, by way of a
gateway. What admits it is what it knows, the verify token or a secret.
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
    """The routes. *is_signed* tells of a body and its header if they are Meta's.

    *prefetch* has whoever writes looked up before anybody asks.
    """
    bp = Blueprint(WEBHOOKS, __name__, url_prefix="/webhooks")

    @bp.get("/instagram")
    def verify() -> Response:
        """Meta's handshake, when somebody enters this address at Meta's.

        Source: https://developers.facebook.com/docs/graph-api/webhooks/getting-started
        """
        given = request.args.get("hub.verify_token", "")
        is_known = hmac.compare_digest(
            given.encode("utf-8", "surrogatepass"), verify_token().encode()
        )
        if request.args.get("hub.mode") != "subscribe" or not is_known:
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
        """Drop what Meta has refused of everybody who has written.

        Once this is answered with 200, nobody is told so any more.
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
            # Signed, so Meta's, and the same bytes would come again: no error.
            metrics.webhooks["unreadable"] += 1
            return responses.render_ok(render_updates(0, 0))
        updates, people = _by_page(updates, pages.of_account)
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
    """*text* as it is, for whoever wants just that."""
    response = Response(text, mimetype="text/plain")
    response.headers["Cache-Control"] = "no-store"
    return response


def render_updates(updates: int, senders: int) -> dict[str, int]:
    """How many updates a webhook had, and how many people have written."""
    return {"updates": updates, "writers": senders}


def _by_page(
    updates: list[Update], of_account: Callable[[str | None], str | None]
) -> tuple[list[Update], dict[str, list[Igsid]]]:
    """*updates*, and who has written to which Page, each person once.

    Who has written to an account that is no Page's here is nobody's.
    """
    told: list[Update] = []
    people: dict[str, dict[Igsid, None]] = {}
    for update in updates:
        if (sender := update.sender) is not None:
            page = of_account(update.account)
            if page is None:
                update = update._replace(result=UpdateResult.NO_PAGE, sender=None)
            else:
                people.setdefault(page, {})[sender] = None
        told.append(update)
    return told, {page: list(senders) for page, senders in people.items()}
