"""One update of a webhook, as far as it matters here."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from proxy.domain.profile import Igsid


class UpdateKind(StrEnum):
    """What an update of a webhook tells of. The values are labels of a metric."""

    MESSAGE = "message"
    POSTBACK = "postback"
    ECHO = "echo"
    DELETED = "deleted"
    SEEN = "seen"
    REACTION = "reaction"
    EDIT = "edit"
    REFERRAL = "referral"
    CHANGE = "change"
    OTHER = "other"


class UpdateResult(StrEnum):
    """What is made of an update. The values are labels of a metric."""

    WRITTEN = "written"
    IGNORED = "ignored"
    UNREADABLE = "unreadable"
    NO_PAGE = "no_page"


class Update(NamedTuple):
    """One update of a webhook; *sender* is who has written, if that is what it says.

    To the business with that *account*, by whichever of its ids.
    """

    kind: UpdateKind
    result: UpdateResult
    sender: Igsid | None = None
    account: str | None = None
