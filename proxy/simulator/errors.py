"""Meta's errors, with the texts that were recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

RATE_LIMITS_GUIDE = (
    "https://developers.facebook.com/docs/graph-api/overview/rate-limiting"
)
PACIFIC = timedelta(hours=-7)


@dataclass(frozen=True, slots=True)
class GraphError:
    """One error of Meta's and the HTTP status that comes with it.

    Most statuses are odd on purpose: throttling is a 400, a retired
    parameter a 500. Source:
    https://developers.facebook.com/docs/graph-api/guides/error-handling
    """

    status: int
    code: int
    message: str
    subcode: int | None = None
    type: str = "OAuthException"
    is_transient: bool | None = None

    def envelope(self, trace: str) -> dict[str, object]:
        """Return the body: ``{"error": {"message", "type", "code", ...}}``."""
        error: dict[str, object] = {"message": self.message, "type": self.type}
        if self.is_transient is not None:
            error["is_transient"] = self.is_transient
        error["code"] = self.code
        if self.subcode is not None:
            error["error_subcode"] = self.subcode
        error["fbtrace_id"] = trace
        return {"error": error}


CONSENT_REQUIRED = GraphError(
    403, 230, "(#230) User consent is required to access user profile"
)
NO_MATCHING_USER = GraphError(400, 9010, "(#9010) No matching Instagram user")
NO_MATCHING_USER_FOUND = GraphError(
    400, 100, "(#100) No matching user found", subcode=2018001
)
# Meta's table of errors has some subcodes in the column of codes too.
NO_PROFILE_AVAILABLE = GraphError(400, 2018218, "No profile available for this user.")
# No real body is known for a customer who has blocked the business. Meta answers
# *sends* like this; the answer to a profile call may differ.
BLOCKED = GraphError(400, 551, "(#551) This person isn't available right now.")
UNAVAILABLE_FOR_NOW = GraphError(
    503, 2, "(#2) Service temporarily unavailable", is_transient=True
)
TOKEN_MISSING = GraphError(
    400, 104, "An access token is required to request this resource."
)
ACTIVE_TOKEN_MISSING = GraphError(
    400,
    2500,
    "An active access token must be used to query information about the current user.",
)
TOKEN_INVALID = GraphError(400, 190, "Invalid OAuth access token.")
# The answer of graph.facebook.com to the token of an Instagram login (``IGAA...``).
TOKEN_UNREADABLE = GraphError(
    401, 190, "Invalid OAuth access token - Cannot parse access token"
)
PROOF_MISSING = GraphError(
    400,
    100,
    "API calls from the server require an appsecret_proof argument",
    type="GraphMethodException",
)
PROOF_INVALID = GraphError(
    400,
    100,
    "Invalid appsecret_proof provided in the API argument",
    type="GraphMethodException",
)
IDS_RETIRED = GraphError(500, 100, "The ids query parameter is deprecated in v26.0+.")
_NO_SUCH_OBJECT = (
    "Unsupported {method} request. Object with ID '{node}' does not exist, cannot be "
    "loaded due to missing permissions, or does not support this operation. Please "
    "read the Graph API documentation at https://developers.facebook.com/docs/graph-api"
)


def no_such_object(node: str, method: str = "get") -> GraphError:
    """Return 100/33: deleted, unknown, not visible or not readable, without a hint."""
    message = _NO_SUCH_OBJECT.format(node=node, method=method)
    return GraphError(400, 100, message, subcode=33, type="GraphMethodException")


def no_such_alias(alias: str) -> GraphError:
    """Return 803, for text that does not have the form of an id."""
    message = f"(#803) Some of the aliases you requested do not exist: {alias}"
    return GraphError(400, 803, message)


def no_such_field(field: str) -> GraphError:
    """Return 100, for the whole call, because of one field."""
    message = f"(#100) Tried accessing nonexisting field ({field})"
    return GraphError(400, 100, f"{message} on node type (IGBusinessScopedUser)")


def unknown_path(path: str) -> GraphError:
    """Return 2500, for an edge that no node has."""
    return GraphError(400, 2500, f"Unknown path components: {path}")


def dead_token(subcode: int | None, died_at: float, now: float) -> GraphError:
    """Return 190, for a token that was valid once; *subcode* names the cause."""
    if subcode is None:
        return TOKEN_INVALID
    ends = {
        458: "The user has not authorized application 2586347315015828.",
        459: "You cannot access the app till you log in to www.facebook.com and "
        "follow the instructions given.",
        460: "The session has been invalidated because the user changed their "
        "password or Facebook has changed the session for security reasons",
        463: f"Session has expired on {_pacific(died_at)}. "
        f"The current time is {_pacific(now)}.",
        464: "Sessions for the user are not allowed because the user is not a "
        "confirmed user.",
        467: "The session is invalid because the user logged out.",
    }
    end = ends.get(subcode, "The session is invalid.")
    return GraphError(400, 190, f"Error validating access token: {end}", subcode)


def _pacific(at: float) -> str:
    return (datetime.fromtimestamp(at, UTC) + PACIFIC).strftime(
        "%A, %d-%b-%y %H:%M:%S PDT"
    )


_BUSINESS_POOLS = {80001: "Page", 80002: "Instagram", 80006: "Messenger"}


def throttled(code: int) -> GraphError | None:
    """Return the error of one of Meta's limits, or None if *code* is not a limit's.

    Of the business limits only the text of 80001 is known; no real body of 80002
    or 80006 was found, so theirs follow its pattern.
    """
    if 80000 <= code <= 80014:
        pool = _BUSINESS_POOLS.get(code, "ad")
        message = (
            f"(#{code}) There have been too many calls to this {pool} account. Wait a "
            f"bit and try again. For more info, please refer to {RATE_LIMITS_GUIDE}."
        )
        return GraphError(400, code, message)
    return _LIMITS.get(code)


_LIMITS: Mapping[int, GraphError] = {
    4: GraphError(403, 4, "(#4) Application request limit reached", is_transient=True),
    17: GraphError(400, 17, "(#17) User request limit reached"),
    32: GraphError(400, 32, "(#32) Page request limit reached"),
    613: GraphError(400, 613, "(#613) Calls to this api have exceeded the rate limit."),
}

_KNOWN: Mapping[tuple[int, int | None], GraphError] = {
    (error.code, error.subcode): error
    for error in (
        CONSENT_REQUIRED,
        NO_MATCHING_USER,
        NO_MATCHING_USER_FOUND,
        NO_PROFILE_AVAILABLE,
        GraphError(400, 2018001, "No matching user found"),
        BLOCKED,
        GraphError(
            400,
            200,
            "(#200) This person isn't available right now.",
            subcode=1545041,
        ),
        UNAVAILABLE_FOR_NOW,
        TOKEN_MISSING,
        ACTIVE_TOKEN_MISSING,
        TOKEN_INVALID,
        PROOF_MISSING,
        GraphError(500, 2, "Service temporarily unavailable", subcode=2018344),
        GraphError(500, 1, "An unknown error occurred"),
        GraphError(500, 1, "An unknown error occurred", subcode=99),
        GraphError(
            400,
            3,
            "(#3) Application does not have the capability to make this API call.",
        ),
        GraphError(400, 5, "(#5) Unauthorized source IP address"),
        GraphError(
            403, 10, "(#10) Application does not have permission for this action"
        ),
        GraphError(
            403,
            10,
            "(#10) This Page has been restricted from messaging.",
            subcode=1893063,
        ),
        GraphError(400, 100, "No matching Instagram user", subcode=2534014),
        GraphError(
            400, 100, "(#100) No profile available for this user.", subcode=2018218
        ),
        GraphError(
            400,
            100,
            "(#100) Insufficient permission to access user profile.",
            subcode=2018247,
        ),
        GraphError(403, 2018247, "Insufficient permission to access user profile."),
        GraphError(
            403,
            200,
            "(#200) App does not have Advanced Access to instagram_manage_messages "
            "permission, and recipient user does not have role on app.",
        ),
        GraphError(
            403,
            200,
            "The account owner has disabled access to instagram direct messages.",
            subcode=2534041,
        ),
    )
}


def error_for(code: int, subcode: int | None, node: str, now: float) -> GraphError:
    """Return the error of *code* and *subcode*, with Meta's text if it is known."""
    if (code, subcode) == (100, 33):
        return no_such_object(node)
    if code == 803:
        return no_such_alias(node)
    if code == 190 and subcode is not None:
        return dead_token(subcode, now, now)
    if subcode is None and (limit := throttled(code)) is not None:
        return limit
    unknown = GraphError(400, code, f"(#{code}) An error of the simulator", subcode)
    return _KNOWN.get((code, subcode), unknown)
