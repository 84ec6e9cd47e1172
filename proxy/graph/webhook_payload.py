"""Read Meta's webhooks: the people who wrote to the business.

Source: https://developers.facebook.com/docs/messenger-platform/webhooks
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from proxy.domain.profile import IGSID, Igsid
from proxy.domain.webhook_update import Update, UpdateKind, UpdateResult

OBJECT = "instagram"
"""The ``object`` of a webhook of Instagram."""

TEST_ACCOUNT = "0"
"""The account id that the test button of Meta's dashboard sends."""

_LISTS = ("messaging", "standby")
"""The lists of events in an entry; ``standby`` while another app has the thread."""

_NOT_MESSAGES = {
    "read": UpdateKind.SEEN,
    "reaction": UpdateKind.REACTION,
    "message_edit": UpdateKind.EDIT,
    "referral": UpdateKind.REFERRAL,
}
"""The kinds of event that give no consent, by their key."""

_NOT_INCOMING = {"is_echo": UpdateKind.ECHO, "is_deleted": UpdateKind.DELETED}
"""The kinds of message that are not new mail to the business, by their flag."""


def read_updates(body: bytes) -> list[Update] | None:
    """Read the updates in *body*; None if it is not an Instagram webhook.

    Never raises: Meta would send the same body again for 36 hours.
    """
    try:
        # Not msgspec, which refuses a lone surrogate: half an emoji in one person's
        # text would cost all other updates in the same body.
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(payload, dict) or payload.get("object") != OBJECT:
        return None
    return list(_updates(payload))


def _updates(payload: dict[str, Any]) -> Iterator[Update]:
    for entry in _objects(payload.get("entry")):
        is_test = entry.get("id") == TEST_ACCOUNT
        for name in _LISTS:
            for event in _objects(entry.get(name)):
                yield _update(event, entry.get("id"), is_test)
        for _ in _objects(entry.get("changes")):
            yield Update(UpdateKind.CHANGE, UpdateResult.IGNORED)


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in *value*, if it is a list."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


def _update(event: dict[str, Any], account: object, is_test: bool) -> Update:
    kind = _kind(event)
    if is_test or kind not in (UpdateKind.MESSAGE, UpdateKind.POSTBACK):
        return Update(kind, UpdateResult.IGNORED)
    sender = _sender(event)
    if sender is None:
        return Update(kind, UpdateResult.UNREADABLE)
    # No Page is configured with an account id that is not text.
    recipient = account if isinstance(account, str) else None
    return Update(kind, UpdateResult.WRITTEN, sender, recipient)


def _kind(event: dict[str, Any]) -> UpdateKind:
    message = event.get("message")
    if isinstance(message, dict):
        for flag, kind in _NOT_INCOMING.items():
            if message.get(flag):
                return kind
        return UpdateKind.MESSAGE
    if isinstance(event.get("postback"), dict):
        return UpdateKind.POSTBACK
    for key, kind in _NOT_MESSAGES.items():
        if key in event:
            return kind
    return UpdateKind.OTHER


def _sender(event: dict[str, Any]) -> Igsid | None:
    """Return the sender's id if it is text: a number may have lost digits."""
    sender = event.get("sender")
    igsid = sender.get("id") if isinstance(sender, dict) else None
    if isinstance(igsid, str) and IGSID.fullmatch(igsid):
        return Igsid(igsid)
    return None
