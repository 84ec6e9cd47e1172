"""Meta's error messages about a person, for the Graph-compatible endpoint."""

from __future__ import annotations

from typing import NamedTuple

from proxy.domain.profile import Refusal


class ErrorMessage(NamedTuple):
    """The HTTP status, the message and the ``type`` that Meta sends with a code."""

    status: int
    message: str
    type: str = "OAuthException"


MESSAGES: dict[tuple[int, int | None], ErrorMessage] = {
    (230, None): ErrorMessage(
        403, "(#230) User consent is required to access user profile"
    ),
    (551, None): ErrorMessage(400, "(#551) This person isn't available right now."),
    (9010, None): ErrorMessage(400, "(#9010) No matching Instagram user"),
    (100, 2534014): ErrorMessage(400, "No matching Instagram user"),
    (100, 2018001): ErrorMessage(400, "(#100) No matching user found"),
    (100, 2018218): ErrorMessage(400, "(#100) No profile available for this user."),
    (2018001, None): ErrorMessage(400, "No matching user found"),
    (2018218, None): ErrorMessage(400, "No profile available for this user."),
    (803, None): ErrorMessage(
        400, "(#803) Some of the aliases you requested do not exist: {igsid}"
    ),
    (100, 33): ErrorMessage(
        400,
        "Unsupported get request. Object with ID '{igsid}' does not exist, cannot be"
        " loaded due to missing permissions, or does not support this operation. Please"
        " read the Graph API documentation at"
        " https://developers.facebook.com/docs/graph-api",
        "GraphMethodException",
    ),
}
"""The message of every refusal in `replies.ROWS`, by code and subcode.

As Meta has published it, or as it was recorded: the message that Meta sent is not
stored. Clients also look for the code in the message, so the codes that Meta puts
there are kept.

Source: https://developers.facebook.com/docs/graph-api/guides/error-handling,
https://developers.facebook.com/docs/messenger-platform/error-codes, and live
replies (tests/fixtures/graph).
"""


def error_message(refusal: Refusal) -> ErrorMessage:
    """Return Meta's message for the code of *refusal*, or that of a block.

    BLOCKED_CODES can name codes whose message is not in the table.
    """
    said = refusal.said
    code = said.code or 0
    row = MESSAGES.get((code, said.subcode)) or MESSAGES.get((code, None))
    if row is None:
        return ErrorMessage(400, f"(#{code}) This person isn't available right now.")
    return row._replace(message=row.message.format(igsid=refusal.igsid))
