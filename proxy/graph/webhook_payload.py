"""Read Meta's webhooks: the people who wrote to the business.

Source: https://developers.facebook.com/docs/messenger-platform/webhooks
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxy.domain.profile import IGSID, Igsid
from proxy.domain.webhook_update import Update, UpdateKind, UpdateResult
from proxy.graph.lenient_json import read_id, read_json

OBJECT = "instagram"
"""The ``object`` of a webhook of Instagram."""

TEST_ACCOUNTS = frozenset(["0", "23245"])
"""The account ids that the test buttons of Meta's dashboard send."""

_LISTS = ("messaging", "standby")
"""The lists of events in an entry; ``standby`` while another app has the thread."""

_MESSAGING_FIELDS = ("messages", "messaging_postbacks")
"""The fields of a change whose value is an event, as in the lists above."""

_INCOMING = {"message": UpdateKind.MESSAGE, "postback": UpdateKind.POSTBACK}
"""The kinds of event by which a person writes to the business, by their key."""

_NOT_INCOMING = {
    "is_echo": UpdateKind.ECHO,
    "is_self": UpdateKind.SELF,
    "is_deleted": UpdateKind.DELETED,
}
"""The kinds of message that are not new mail to the business, by their flag."""

_NOT_MESSAGES = {
    "read": UpdateKind.SEEN,
    "reaction": UpdateKind.REACTION,
    "message_edit": UpdateKind.EDIT,
    "referral": UpdateKind.REFERRAL,
}
"""The kinds of event that give no consent, by their key."""


def read_updates(body: bytes) -> list[Update] | None:
    """Read the updates in *body*; None if it is not an Instagram webhook.

    Never raises: Meta would send the same body again for 36 hours.
    """
    payload = read_json(body)
    if not isinstance(payload, dict):
        return None
    if payload.get("object") == OBJECT:
        return list(_updates(payload))
    if "object" not in payload and "field" in payload:
        # The dashboard's test button sends a change by itself.
        return [_change(payload, None)]
    return None


def _updates(payload: dict[str, Any]) -> Iterator[Update]:
    for entry in _objects(payload.get("entry")):
        account = read_id(entry.get("id"))
        for name in _LISTS:
            for event in _objects(entry.get(name)):
                yield _update(event, account)
        for change in _objects(entry.get("changes")):
            yield _change(change, account)


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in *value*, if it is a list."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


def _change(change: dict[str, Any], account: str | None) -> Update:
    """Read ``{"field", "value"}``; its value may be an event of the other lists."""
    event = change.get("value")
    if change.get("field") in _MESSAGING_FIELDS and isinstance(event, dict):
        return _update(event, account)
    return Update(UpdateKind.CHANGE, UpdateResult.IGNORED)


def _update(event: dict[str, Any], account: str | None) -> Update:
    """Read one event of *account*, which is its recipient where an entry has no id."""
    kind = _kind(event)
    if kind not in _INCOMING.values():
        return Update(kind, UpdateResult.IGNORED)
    sender, recipient = _id_of(event, "sender"), _id_of(event, "recipient")
    account = account or recipient
    if account in TEST_ACCOUNTS:
        return Update(kind, UpdateResult.IGNORED)
    if sender is not None and sender in (account, recipient):
        return Update(kind, UpdateResult.IGNORED)
    if sender is None or not IGSID.fullmatch(sender):
        return Update(kind, UpdateResult.UNREADABLE)
    return Update(kind, UpdateResult.WRITTEN, Igsid(sender), account)


def _kind(event: dict[str, Any]) -> UpdateKind:
    for key, kind in _INCOMING.items():
        if isinstance(content := event.get(key), dict):
            return _kind_by_flag(content, kind)
    edit = event.get("message_edit")
    if isinstance(edit, dict) and _is_new(edit) and _id_of(event, "sender"):
        return _kind_by_flag(edit, UpdateKind.MESSAGE)
    for key, kind in _NOT_MESSAGES.items():
        if key in event:
            return kind
    return UpdateKind.OTHER


def _kind_by_flag(content: dict[str, Any], kind: UpdateKind) -> UpdateKind:
    flags = (other for flag, other in _NOT_INCOMING.items() if content.get(flag))
    return next(flags, kind)


def _is_new(edit: dict[str, Any]) -> bool:
    """Whether the message is new: some apps get one only as its zeroth edit."""
    return edit.get("num_edit") == 0 and not isinstance(edit["num_edit"], bool)


def _id_of(event: dict[str, Any], role: str) -> str | None:
    """Return the id of the ``sender`` or the ``recipient``."""
    party = event.get(role)
    return read_id(party.get("id")) if isinstance(party, dict) else None
