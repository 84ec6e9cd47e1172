"""Meta's webhooks: who has written to the business.

Source: https://developers.facebook.com/docs/messenger-platform/webhooks
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from proxy.domain.profile import IGSID, Igsid
from proxy.domain.webhook_update import Update, UpdateKind, UpdateResult

OBJECT = "instagram"
"""What a webhook of Instagram says it is about."""

TEST_ACCOUNT = "0"
"""The account in whose name the test button of Meta's dashboard writes."""

_LISTS = ("messaging", "standby")
"""Where an entry has what people do; ``standby`` while another app has the thread."""

_NOT_MESSAGES = {
    "read": UpdateKind.SEEN,
    "reaction": UpdateKind.REACTION,
    "message_edit": UpdateKind.EDIT,
    "referral": UpdateKind.REFERRAL,
}
"""What an event can be that says nothing of consent, by the key that it has."""

_NOT_INCOMING = {"is_echo": UpdateKind.ECHO, "is_deleted": UpdateKind.DELETED}
"""Messages that nobody has just sent to the business, by their flag."""


def read_updates(body: bytes) -> list[Update] | None:
    """What *body* tells, one update after the other; None if it is no webhook of ours.

    Whatever it is, nothing is raised: Meta would send the same again for 36 hours.
    """
    try:
        # Not msgspec, which refuses a lone surrogate: half of an emoji in somebody's
        # text would cost all others in the same body.
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("object") != OBJECT:
        return None
    return list(_updates(told))


def _updates(told: dict[str, Any]) -> Iterator[Update]:
    for entry in _objects(told.get("entry")):
        is_test = entry.get("id") == TEST_ACCOUNT
        for name in _LISTS:
            for event in _objects(entry.get(name)):
                yield _update(event, entry.get("id"), is_test)
        for _ in _objects(entry.get("changes")):
            yield Update(UpdateKind.CHANGE, UpdateResult.IGNORED)


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects in *value*, if it is a list."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


def _update(event: dict[str, Any], account: object, is_test: bool) -> Update:
    kind = _kind(event)
    if is_test or kind not in (UpdateKind.MESSAGE, UpdateKind.POSTBACK):
        return Update(kind, UpdateResult.IGNORED)
    sender = _writer(event)
    if sender is None:
        return Update(kind, UpdateResult.UNREADABLE)
    # Where the account is no text, it is none that anybody lists.
    to = account if isinstance(account, str) else None
    return Update(kind, UpdateResult.WRITTEN, sender, to)


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


def _writer(event: dict[str, Any]) -> Igsid | None:
    """Whom the event is from; an id as a number may have lost digits on its way."""
    sender = event.get("sender")
    igsid = sender.get("id") if isinstance(sender, dict) else None
    if isinstance(igsid, str) and IGSID.fullmatch(igsid):
        return Igsid(igsid)
    return None
