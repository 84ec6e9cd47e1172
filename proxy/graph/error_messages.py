"""How Meta says no about a person: for the door that answers in Meta's shape."""

from __future__ import annotations

from typing import NamedTuple

from proxy.domain.profile import Refusal


class Words(NamedTuple):
    """What comes with a code: an HTTP status, a message and a ``type``."""

    status: int
    message: str
    type: str = "OAuthException"


WORDS: dict[tuple[int, int | None], Words] = {
    (230, None): Words(403, "(#230) User consent is required to access user profile"),
    (551, None): Words(400, "(#551) This person isn't available right now."),
    (9010, None): Words(400, "(#9010) No matching Instagram user"),
    (100, 2534014): Words(400, "No matching Instagram user"),
    (100, 2018218): Words(400, "(#100) No profile available for this user."),
    (803, None): Words(
        400, "(#803) Some of the aliases you requested do not exist: {igsid}"
    ),
    (100, 33): Words(
        400,
        "Unsupported get request. Object with ID '{igsid}' does not exist, cannot be"
        " loaded due to missing permissions, or does not support this operation. Please"
        " read the Graph API documentation at"
        " https://developers.facebook.com/docs/graph-api",
        "GraphMethodException",
    ),
}
"""Every refusal of `replies.ROWS`, by code and subcode, as Meta has published it or as
it was recorded. What Meta really said is not stored. Clients look for codes in the
message, too, so those that Meta puts there stand here.

Source: https://developers.facebook.com/docs/graph-api/guides/error-handling,
https://developers.facebook.com/docs/messenger-platform/error-codes, and what was
seen live (tests/fixtures/graph).
"""


def words_of(refusal: Refusal) -> Words:
    """What Meta says with the code of *refusal*, or nearly that.

    An operator can take other codes for a block, of which no words are known.
    """
    said = refusal.said
    code = said.code or 0
    words = WORDS.get((code, said.subcode)) or WORDS.get((code, None))
    if words is None:
        return Words(400, f"(#{code}) This person isn't available.")
    return words._replace(message=words.message.format(igsid=refusal.igsid))
