"""One update of a webhook: its kind, its result, its sender and its account."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from proxy.domain.profile import Igsid


class UpdateKind(StrEnum):
    """The kind of event in an update. The values are labels of a metric."""

    MESSAGE = "message"
    POSTBACK = "postback"
    ECHO = "echo"
    SELF = "self"
    DELETED = "deleted"
    SEEN = "seen"
    REACTION = "reaction"
    EDIT = "edit"
    REFERRAL = "referral"
    CHANGE = "change"
    OTHER = "other"


class UpdateResult(StrEnum):
    """How an update is handled. The values are labels of a metric."""

    WRITTEN = "written"
    IGNORED = "ignored"
    UNREADABLE = "unreadable"
    NO_PAGE = "no_page"


class Update(NamedTuple):
    """One update of a webhook.

    *sender* is the person who has written to the business, if the update is about a
    message; *account* is the business, by whichever of its ids.
    """

    kind: UpdateKind
    result: UpdateResult
    sender: Igsid | None = None
    account: str | None = None
