"""The meaning of each reply of Meta."""

import json
import traceback
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.domain.failures import (
    Cause,
    GraphUnavailable,
    LookupFailure,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import (
    FIELDS,
    GraphError,
    Igsid,
    Outcome,
    Profile,
    Reason,
    Refusal,
)
from proxy.graph.replies import ROWS, PictureRefused, Row, may_mean_blocked, read_reply
from tests.helpers.builders import ADA
from tests.helpers.recorded_replies import ERRORS, RECORDED, REPLIES

BLOCKED: frozenset[tuple[int, int | None]] = frozenset()

MEANS: dict[str, object] = {
    "ok": Profile,
    "consent_required": Reason.CONSENT_REQUIRED,
    "blocked": Reason.BLOCKED,
    "gone": Reason.NOT_FOUND,
    "not_found_or_permission": Reason.UNAVAILABLE,
    "token": TokenRejected,
    "permission": PermissionMissing,
    "config": PermissionMissing,
    "rate_limited": Throttled,
    "transient": GraphUnavailable,
    "bad_field": PictureRefused,
    "batch": GraphUnavailable,
}
"""Our meaning of each recorded class. A batch does not answer a single call."""


def as_sent(value: Any) -> bytes:
    """Encode *value* as Meta does: JSON in ASCII, with escaped slashes."""
    return json.dumps(value).replace("/", "\\/").encode()


def meaning(
    body: bytes,
    *,
    igsid: str = ADA,
    blocked: frozenset[tuple[int, int | None]] = BLOCKED,
) -> object:
    """Read *body*; return Profile, a Reason, or the class that was raised."""
    try:
        outcome = read_reply(body, Igsid(igsid), blocked).outcome
    except (LookupFailure, PictureRefused) as raised:
        return type(raised)
    return outcome.reason if isinstance(outcome, Refusal) else type(outcome)


def meaning_of_error(
    code: object, subcode: object = None, message: str = "", **more: object
) -> object:
    said = {"message": message, "code": code, "error_subcode": subcode} | more
    return meaning(as_sent({"error": {k: v for k, v in said.items() if v is not None}}))


def outcome_of(body: bytes) -> Outcome:
    """Return the outcome in a reply about Ada."""
    return read_reply(body, ADA, BLOCKED).outcome


# The recorded replies.


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_reply_names_its_source(name: str) -> None:
    """And our confidence in it; the note of an invented reply says so."""
    record = RECORDED[name]

    assert record.keys() - {"note"} == {
        "source",
        "confidence",
        "kind",
        "suggested_class",
        "status",
        "headers",
        "body",
    }
    assert record["source"] and record["confidence"]


def row_of(code: object, subcode: object) -> Row | None:
    """Return the row that decides; a row with the subcode comes first."""
    for wanted in (subcode, None):
        for row in ROWS:
            if code in row.codes and row.subcode == wanted:
                return row
    return None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{min(row.codes)}")
def test_every_row_of_the_table_has_a_recorded_reply(row: Row) -> None:
    """A reply that this row decides, and not a row with a subcode."""
    decided_by = [
        row_of(body["error"].get("code"), body["error"].get("error_subcode"))
        for body in ERRORS.values()
    ]

    assert row in decided_by


@pytest.mark.parametrize(
    "code",
    [1, 2, 3, 4, 5, 10, 17, 32, 100, 102, 104, 190, 200, 230, 298, 368, 551, 613]
    + [803, 2500, 9010, 36103, 80001, 80002, 80006, 2018001, 2018218, 2018247],
)
def test_every_single_code_has_a_recorded_reply(code: int) -> None:
    """A range has one for each of its codes that this call can get."""
    recorded = {body["error"].get("code") for body in ERRORS.values()}

    assert code in recorded


@pytest.mark.parametrize("name", REPLIES)
def test_recorded_reply_has_the_meaning_of_its_class(name: str) -> None:
    """The HTTP status is not read here, because it is unreliable."""
    record = REPLIES[name]
    body = record["body"]
    is_html = isinstance(body, str)
    igsid = body.get("id", ADA) if isinstance(body, dict) else ADA

    result = meaning(body.encode() if is_html else as_sent(body), igsid=igsid)

    assert result == MEANS[record["suggested_class"]]


# The table of codes.


CODES: dict[object, list[tuple[int | None, int | None]]] = {
    Reason.CONSENT_REQUIRED: [(230, None), (230, 1234567)],
    Reason.BLOCKED: [(551, None), (551, 1545041)],
    Reason.NOT_FOUND: [
        *[(9010, None), (9010, 1), (803, None)],
        *[(100, subcode) for subcode in (2534014, 2018001, 2018218)],
        *[(code, None) for code in (2018001, 2018218)],
    ],
    Reason.UNAVAILABLE: [(100, 33)],
    TokenRejected: [
        *[(190, subcode) for subcode in (None, 458, 459, 460, 463)],
        *[(190, subcode) for subcode in (464, 467, 492, 33, 2534014)],
        *[(code, None) for code in (102, 104, 2500)],
    ],
    PermissionMissing: [
        *[(code, None) for code in (3, 5, 10, 200, 229, 231, 298, 299)],
        *[(code, None) for code in (100, 368, 36103, 2018247)],
        *[(10, 1893063), (10, 2534077)],
        *[(200, 1545041), (200, 2534041), (200, 2534048)],
        *[(100, subcode) for subcode in (2534013, 2018247)],
    ],
    Throttled: [
        *[(code, None) for code in (4, 17, 32, 613)],
        *[(code, None) for code in (80000, 80001, 80002, 80006, 80014)],
        (613, 2534040),
    ],
    GraphUnavailable: [
        *[(1, None), (1, 99), (2, None), (2, 33), (2, 2018344)],
        # Not in the table, so we do not guess.
        *[(code, None) for code in (0, -1, 33, 199, 300, 9011)],
        *[(code, None) for code in (552, 79999, 80015, 2534014)],
        *[(None, None), (None, 33)],
    ],
}
"""Codes and subcodes by their meaning."""


@pytest.mark.parametrize(
    ("code", "subcode", "expected"),
    [
        (code, subcode, expected)
        for expected, pairs in CODES.items()
        for code, subcode in pairs
    ],
)
def test_code_and_subcode_decide_the_meaning(
    code: int | None, subcode: int | None, expected: object
) -> None:
    """A row with the subcode wins, and no other key is needed."""
    result = meaning_of_error(code, subcode)

    assert result == expected


@pytest.mark.parametrize("is_transient", [True, False])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1, GraphUnavailable),
        (2, GraphUnavailable),
        (4, Throttled),
        (77, GraphUnavailable),
    ],
)
def test_is_transient_does_not_change_a_failure_s_class(
    code: int, expected: object, is_transient: bool
) -> None:
    """Codes 1 and 2 have come with false, and code 4 with true."""
    result = meaning_of_error(code, is_transient=is_transient)

    assert result is expected


@pytest.mark.parametrize(
    ("code", "subcode"),
    [(230, None), (551, None), (9010, None), (100, 2534014), (100, 33), (803, None)],
)
@pytest.mark.parametrize("is_transient", [True, 1, "true"])
def test_transient_refusal_is_a_failure(
    code: int, subcode: int | None, is_transient: object
) -> None:
    """A passing state is not a fact about a person."""
    result = meaning_of_error(code, subcode, is_transient=is_transient)

    assert result is GraphUnavailable


@pytest.mark.parametrize(
    ("blocked", "code", "subcode", "expected"),
    [
        ({(551, None)}, 551, None, Reason.BLOCKED),
        ({(551, None)}, 551, 7, Reason.BLOCKED),
        (set(), 551, None, Reason.BLOCKED),
        ({(100, 33)}, 551, 7, Reason.BLOCKED),
        ({(100, 33)}, 100, 33, Reason.BLOCKED),
        ({(100, 33)}, 100, 2534014, Reason.NOT_FOUND),
        ({(100, 33)}, 100, None, PermissionMissing),
        ({(200, 1545041)}, 200, 1545041, Reason.BLOCKED),
        ({(200, 1545041)}, 200, None, PermissionMissing),
        ({(200, 1545041)}, 200, 2534041, PermissionMissing),
        ({(9010, 7)}, 9010, 7, Reason.BLOCKED),
        ({(9010, 7)}, 9010, None, Reason.NOT_FOUND),
        ({(2, 7)}, 2, 7, Reason.BLOCKED),
        ({(77, 7)}, 77, None, GraphUnavailable),
        ({(77, 7)}, 77, 7, Reason.BLOCKED),
    ],
)
def test_blocked_codes_of_the_operator_mean_blocked(
    blocked: set[tuple[int, int | None]],
    code: int,
    subcode: int | None,
    expected: object,
) -> None:
    """In addition to 551: no live reply about a blocked business is known."""
    error = {"message": "", "code": code} | (
        {"error_subcode": subcode} if subcode else {}
    )

    result = meaning(as_sent({"error": error}), blocked=frozenset(blocked))

    assert result == expected


@pytest.mark.parametrize(
    ("code", "subcode", "may"),
    [
        *[(code, None, True) for code in (551, 77, 9011)],
        *[(code, None, False) for code in (1, 2, 3, 4, 10, 100, 190, 200, 230, 368)],
        *[(code, None, False) for code in (803, 2500, 9010, 2018218, 2018247)],
        *[(code, 7, True) for code in (1, 2, 10, 77, 100, 200, 230, 368, 551, 9010)],
        (200, 1545041, True),
        *[(code, 33, False) for code in (102, 104, 190, 2500)],
        *[(code, 33, False) for code in (4, 17, 32, 613, 80000, 80002, 80014)],
    ],
)
def test_only_some_codes_may_mean_blocked(
    code: int, subcode: int | None, may: bool
) -> None:
    """A dead token must never become many refusals, nor a code with another meaning."""
    assert may_mean_blocked(code, subcode) is may


# The traps.


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (230, "(#230) Requires pages_messaging permission to manage the object"),
        (230, "(#230) Requires instagram_manage_messages permission to manage"),
        (230, "(#230) Requires pages_messaging to manage the object"),
        (230, "(#230) This requires instagram_manage_messages"),
        (230, "(#230) REQUIRES PAGES_MESSAGING"),
        (230, "(#230) Permissions error"),
        (200, "(#200) App does not have Advanced Access to instagram_manage_messages"),
        (200, "User consent is required to access user profile"),
        (10, "No matching Instagram user"),
        (100, "No matching Instagram user"),
        (100, "Unsupported get request. Object with ID '1' does not exist"),
        (100, "Unsupported request - method type: get"),
        (100, "Invalid appsecret_proof provided in the API argument"),
        (100, "The ids query parameter is deprecated in v26.0+."),
        (100, "(#100) Tried accessing nonexisting field (username)"),
    ],
)
def test_error_about_the_app_is_not_a_refusal_whatever_its_message(
    code: int, message: str
) -> None:
    """Otherwise one lost permission would look like many refusals."""
    result = meaning_of_error(code, message=message)

    assert result is PermissionMissing


@pytest.mark.parametrize(
    "message",
    [
        "(#230) User consent is required to access user profile",
        "User consent is REQUIRED",
        "O consentimento do usu\u00e1rio \u00e9 necess\u00e1rio",
        "",
    ],
)
def test_code_230_means_consent_required_in_any_language(message: str) -> None:
    """Also without a message."""
    result = meaning_of_error(230, message=message)

    assert result is Reason.CONSENT_REQUIRED


def test_listed_230_that_names_a_permission_is_not_a_block() -> None:
    """The message makes it more cautious, also where an operator lists the code."""
    body = {"error": ERRORS["profile-230-requires-pages-messaging-403"]["error"]}
    body["error"] = body["error"] | {"error_subcode": 7}

    result = meaning(as_sent(body), blocked=frozenset([(230, 7)]))

    assert result is PermissionMissing


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("type_", [None, "IGApiException", "GraphMethodException", 7])
def test_type_of_an_error_is_not_used(error: dict[str, Any], type_: object) -> None:
    """Nearly every error has OAuthException, with a dead token or not."""
    retyped = {"error": error["error"] | {"type": type_}}

    assert meaning(as_sent(retyped)) == meaning(as_sent(error))


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_error_needs_only_codes_and_message(error: dict[str, Any]) -> None:
    """Live replies have lacked the type and the trace."""
    needed = {"message", "code", "error_subcode"}
    bare = {"error": {k: v for k, v in error["error"].items() if k in needed}}

    assert meaning(as_sent(bare)) == meaning(as_sent(error))


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_error_with_only_a_message_is_a_failure(error: dict[str, Any]) -> None:
    """One live reply was so. A message alone decides nothing."""
    bare = {"error": {"message": error["error"]["message"]}}

    assert meaning(as_sent(bare)) is GraphUnavailable


def test_error_may_lack_its_message() -> None:
    """The codes are enough."""
    result = meaning(as_sent({"error": {"code": 9010}}))

    assert result is Reason.NOT_FOUND


@pytest.mark.parametrize("code", ["230", 230.0, True, None, [230], {"code": 230}])
def test_code_that_is_not_an_integer_is_a_failure(code: object) -> None:
    """It is not the documented form, so we do not guess."""
    result = meaning(as_sent({"error": {"message": "", "code": code}}))

    assert result is GraphUnavailable


@pytest.mark.parametrize("subcode", ["33", 33.0, True, [33]])
def test_subcode_that_is_not_an_integer_is_ignored(subcode: object) -> None:
    """It is stored, so it has to be an integer."""
    error = {"message": "", "code": 9010, "error_subcode": subcode}

    outcome = outcome_of(as_sent({"error": error}))

    assert outcome == Refusal(ADA, Reason.NOT_FOUND, GraphError(9010, None, None))


@pytest.mark.parametrize("error", [None, [], "broken", 1, True, {}])
def test_error_that_is_not_a_description_is_a_failure(error: object) -> None:
    """Even beside a valid profile."""
    result = meaning(as_sent({"id": ADA, "name": "Ada", "error": error}))

    assert result is GraphUnavailable


def test_error_beside_a_profile_wins() -> None:
    """At any HTTP status."""
    error = {"message": "Invalid OAuth access token.", "code": 190}

    result = meaning(as_sent({"id": ADA, "name": "Ada", "error": error}))

    assert result is TokenRejected


def test_refusal_keeps_meta_s_codes_and_trace() -> None:
    """Meta's support asks for the trace."""
    body = as_sent(RECORDED["object-does-not-exist-100-33"]["body"])

    outcome = outcome_of(body)

    said = GraphError(100, 33, "A7qVRrTcBm8Pt6iUvnBrxwf")
    assert outcome == Refusal(ADA, Reason.UNAVAILABLE, said)


def test_failure_keeps_meta_s_codes_and_trace() -> None:
    """As a refusal does."""
    body = as_sent(RECORDED["token-app-not-authorized-190-458"]["body"])

    with pytest.raises(TokenRejected) as raised:
        read_reply(body, ADA, BLOCKED)

    assert raised.value.said == GraphError(190, 458, "A3pz5DCfhBg3mGCS6Z9z9zY")


def test_refused_picture_keeps_meta_s_codes() -> None:
    """It becomes a failure if the second call is refused too."""
    body = as_sent({"error": ERRORS["nonexisting-field-profile-pic-100"]["error"]})

    with pytest.raises(PictureRefused) as raised:
        read_reply(body, ADA, BLOCKED)

    assert raised.value.said == GraphError(100, None, None)


@pytest.mark.parametrize(
    "trace", [7, None, "", "a b", "line\nbreak", "<script>", "é", "x" * 65, ["AbC"]]
)
def test_invalid_trace_is_left_out(trace: object) -> None:
    """It goes into logs and answers, so it must have the form of a trace."""
    body = as_sent({"error": {"message": "", "code": 9010, "fbtrace_id": trace}})

    outcome = outcome_of(body)

    assert isinstance(outcome, Refusal)
    assert outcome.said.fbtrace_id is None


# Invalid replies.


VALID = as_sent({"id": ADA, "name": "Zo\u00eb", "follower_count": 12})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"true",
        b"1",
        b'"Ada"',
        b"[]",
        b"{}",
        b"[" + VALID + b"]",
        b'{"success":true}',
        b'{"data":' + VALID + b"}",
        b'{"id":""}',
        b"<!DOCTYPE html><title>Facebook | Error</title>",
        b"URL signature expired",
        VALID[:-1],
        VALID[: len(VALID) // 2],
        VALID + VALID,
        VALID + b"\x00",
        b'{"id":"%s","name":"\xff"}' % ADA.encode(),
        b'{"id":"%s","name":"\xc3"}' % ADA.encode(),
        b"\xff\xfe" + VALID,
        VALID.decode().encode("utf-16")[:-1],
        b"\x1f\x8b\x08\x00" + VALID,
        b'{"id":"%s"}' % ADA.encode(),
        b"[" * 200_000,
        b'{"name":' * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
    ],
    ids=lambda body: repr(body[:40]),
)
def test_body_that_is_not_a_profile_is_a_failure(body: bytes) -> None:
    """Such bodies have come with status 200 too."""
    result = meaning(body)

    assert result is GraphUnavailable


@pytest.mark.parametrize("key", ["\ud800", "\udfff", "a\ud83d"])
def test_lone_surrogate_in_an_unknown_key_costs_nothing(key: str) -> None:
    """The profile is read."""
    result = meaning(as_sent({"id": ADA, "name": "Ada", key: 1}))

    assert result is Profile


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_other_encoding_is_read_correctly_or_not_at_all(encoding: str) -> None:
    """RFC 8259 requires UTF-8; a body that is read all the same is read whole."""
    body = json.dumps({"id": ADA, "name": "Zo\u00eb"}, ensure_ascii=False)

    try:
        name = getattr(outcome_of(body.encode(encoding)), "name", None)
    except GraphUnavailable:
        return

    assert name == "Zo\u00eb"


# Random replies.

SECRET = "EAAB, not for the logs"

text = st.text(st.characters(exclude_categories=()), max_size=8)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([-1, 0, 2**31, 2**53, 2**63, 2**64, 10**4000, 230.0]),
)
scalars = st.none() | st.booleans() | numbers | text
keys = text | st.sampled_from(["id", "error", "code", "message", "data", *FIELDS])
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)
codes = st.sampled_from(sorted({code for row in ROWS for code in row.codes}))
subcodes = st.sampled_from([row.subcode for row in ROWS]) | st.integers()
messages = st.lists(
    text
    | st.sampled_from(
        [body["error"]["message"] for body in ERRORS.values()]
        + ["permission", "consent", "Requires", "nonexisting field (profile_pic)"]
    ),
    max_size=3,
).map(" ".join)

nearly_profiles = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just(ADA) | anything,
        "name": text | anything,
        "username": text | anything,
        "profile_pic": text.map("https://".__add__) | anything,
        "follower_count": st.integers(0, 10**9) | anything,
        "is_verified_user": st.booleans() | anything,
        "error": anything,
    },
)
nearly_errors = st.fixed_dictionaries(
    {},
    optional={
        "message": messages | anything,
        "type": anything,
        "code": codes | anything,
        "error_subcode": subcodes | anything,
        "is_transient": anything,
        "fbtrace_id": anything,
        "error_data": anything,
    },
).map(lambda error: {"error": error})


def check_outcome_or_failure(body: bytes) -> None:
    try:
        outcome = outcome_of(body)
    except (LookupFailure, PictureRefused):
        return
    assert isinstance(outcome, Profile | Refusal)
    assert outcome.igsid == ADA
    json.dumps(asdict(outcome), ensure_ascii=False, allow_nan=False).encode()


@given(st.binary(max_size=200))
@example(b"\xed\xa0\x80")
def test_any_bytes_are_an_outcome_or_a_failure(body: bytes) -> None:
    """They raise no other error."""
    check_outcome_or_failure(body)


@given(anything | nearly_profiles | nearly_errors)
@example({"id": ADA, "name": "Ada", "\ud800": 1})
@example({"id": ADA, "name": "Ada", "follower_count": 10**4000})
@example({"error": {"code": 230, "error_subcode": 2**64}})
def test_any_json_is_an_outcome_of_the_person_or_a_failure(value: Any) -> None:
    """An outcome can be encoded as JSON in UTF-8, for the store and the caller."""
    check_outcome_or_failure(as_sent(value))


@given(codes, st.none() | subcodes, messages)
def test_message_can_only_turn_a_refusal_into_a_failure(
    code: int, subcode: int | None, message: str
) -> None:
    """It may be localised, so no refusal depends on it."""
    without = meaning_of_error(code, subcode)

    result = meaning_of_error(code, subcode, message)

    assert result == without or result in (PermissionMissing, PictureRefused)


@given(
    codes | numbers,
    st.none() | subcodes,
    messages,
    st.sampled_from(["message", "type", "error_user_title", "error_user_msg"]),
)
def test_exception_does_not_quote_meta_s_texts(
    code: float, subcode: int | None, message: str, key: str
) -> None:
    """Live messages have contained ids and tokens."""
    error = {"message": message, "code": code, "error_subcode": subcode}
    error |= {key: f"{message} {SECRET}", "error_data": SECRET, "fbtrace_id": SECRET}

    try:
        shown = repr(read_reply(as_sent({"error": error}), ADA, BLOCKED))
    except (LookupFailure, PictureRefused) as raised:
        shown = "".join(traceback.format_exception(raised))
        shown += f"{raised!r} {raised.__dict__!r}"

    assert SECRET not in shown


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        [SECRET],
        {"id": SECRET, "name": SECRET},
        {"id": ADA, "bio": SECRET},
    ],
    ids=str,
)
def test_exception_does_not_quote_an_invalid_reply(value: Any) -> None:
    """It may be part of a valid one, with a name in it."""
    body = json.dumps(value).encode()

    with pytest.raises(GraphUnavailable) as raised:
        read_reply(body, ADA, BLOCKED)

    shown = "".join(traceback.format_exception(raised.value))
    assert SECRET not in shown + repr(raised.value)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"<html>", Cause.UNAVAILABLE),
        (b'{"name": "Ada', Cause.UNAVAILABLE),
        (b'{"error": {"code": 1}}', Cause.UNAVAILABLE),
        (b'{"error": {"code": 2}}', Cause.UNAVAILABLE),
        (b'{"error": {"code": 230, "is_transient": true}}', Cause.UNAVAILABLE),
        (b'{"error": {"code": 4711, "is_transient": true}}', Cause.UNAVAILABLE),
        (b'{"error": {"code": 4711}}', None),
        (b'{"error": {"message": "Oops"}}', None),
        (b'{"error": "Oops"}', None),
        (b"{}", None),
        (b'{"id": "999999", "name": "Ben"}', None),
        (b'{"error": {"code": 200}}', Cause.PERMISSION),
    ],
)
def test_only_what_meta_says_about_itself_counts_towards_a_cause(body, cause) -> None:
    """A reply that is odd about one person says nothing about all others."""
    with pytest.raises(LookupFailure) as raised:
        read_reply(body, ADA, frozenset())

    assert raised.value.cause is cause
