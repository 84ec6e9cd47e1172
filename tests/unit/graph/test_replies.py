"""What each reply of Meta means."""

import json
import traceback
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.domain.failures import (
    GraphUnavailable,
    LookupFailure,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import FIELDS, GraphError, Igsid, Profile, Reason, Refusal
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
"""What we take each recorded class for. A batch is no answer to a single call."""


def as_sent(value: Any) -> bytes:
    """*value* as Meta sends it: JSON in ASCII, with slashes escaped."""
    return json.dumps(value).replace("/", "\\/").encode()


def meaning(
    body: bytes,
    *,
    igsid: str = ADA,
    blocked: frozenset[tuple[int, int | None]] = BLOCKED,
) -> object:
    """What *body* is taken for: Profile, a Reason, or the class that is raised."""
    try:
        outcome = read_reply(body, Igsid(igsid), blocked)
    except (LookupFailure, PictureRefused) as raised:
        return type(raised)
    return outcome.reason if isinstance(outcome, Refusal) else type(outcome)


def meaning_of_error(
    code: object, subcode: object = None, message: str = "", **more: object
) -> object:
    said = {"message": message, "code": code, "error_subcode": subcode} | more
    return meaning(as_sent({"error": {k: v for k, v in said.items() if v is not None}}))


def read(**fields: object) -> Profile:
    """The profile that a reply with *fields* is read as."""
    outcome = read_reply(as_sent({"id": ADA} | fields), ADA, BLOCKED)
    assert isinstance(outcome, Profile)
    return outcome


# The recorded replies.


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_reply_says_where_it_is_from(name: str) -> None:
    """A reply that was made up says so in its note, and how sure we are."""
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
    """The row that decides, the more exact one first."""
    for wanted in (subcode, None):
        for row in ROWS:
            if code in row.codes and row.subcode == wanted:
                return row
    return None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{min(row.codes)}")
def test_every_row_of_the_table_has_a_recorded_reply(row: Row) -> None:
    """One that this very row decides, and no more exact one."""
    decided_by = [
        row_of(body["error"].get("code"), body["error"].get("error_subcode"))
        for body in ERRORS.values()
    ]

    assert row in decided_by


@pytest.mark.parametrize(
    "code",
    [1, 2, 3, 4, 5, 10, 17, 32, 100, 102, 104, 190, 200, 230, 298, 368, 551, 613]
    + [803, 2500, 9010, 36103, 80001, 80002, 80006],
)
def test_every_code_that_is_known_by_itself_has_a_recorded_reply(code: int) -> None:
    """A range has one for those of its codes that this call can meet."""
    recorded = {body["error"].get("code") for body in ERRORS.values()}

    assert code in recorded


@pytest.mark.parametrize("name", REPLIES)
def test_a_recorded_reply_means_what_its_class_says(name: str) -> None:
    """Whatever its status: that one is weak, and nobody reads it here."""
    record = REPLIES[name]
    body = record["body"]
    is_page = isinstance(body, str)
    igsid = body.get("id", ADA) if isinstance(body, dict) else ADA

    taken_for = meaning(body.encode() if is_page else as_sent(body), igsid=igsid)

    assert taken_for == MEANS[record["suggested_class"]]


# The table of codes.


@pytest.mark.parametrize(
    ("code", "subcode", "means"),
    [
        (230, None, Reason.CONSENT_REQUIRED),
        (230, 1234567, Reason.CONSENT_REQUIRED),
        (551, None, Reason.BLOCKED),
        (551, 1545041, Reason.BLOCKED),
        (9010, None, Reason.NOT_FOUND),
        (9010, 1, Reason.NOT_FOUND),
        (100, 2534014, Reason.NOT_FOUND),
        (100, 2018218, Reason.NOT_FOUND),
        (803, None, Reason.NOT_FOUND),
        (100, 33, Reason.UNAVAILABLE),
        *[(190, subcode, TokenRejected) for subcode in (None, 458, 459, 460, 463)],
        *[(190, subcode, TokenRejected) for subcode in (464, 467, 492, 33, 2534014)],
        (102, None, TokenRejected),
        (104, None, TokenRejected),
        (2500, None, TokenRejected),
        (3, None, PermissionMissing),
        (5, None, PermissionMissing),
        (10, None, PermissionMissing),
        (10, 2534077, PermissionMissing),
        (200, None, PermissionMissing),
        (200, 2534041, PermissionMissing),
        (200, 2534048, PermissionMissing),
        (229, None, PermissionMissing),
        (231, None, PermissionMissing),
        (298, None, PermissionMissing),
        (299, None, PermissionMissing),
        (100, None, PermissionMissing),
        (100, 2534013, PermissionMissing),
        (100, 2018247, PermissionMissing),
        (368, None, PermissionMissing),
        (36103, None, PermissionMissing),
        (4, None, Throttled),
        (17, None, Throttled),
        (32, None, Throttled),
        (613, None, Throttled),
        (613, 2534040, Throttled),
        (80000, None, Throttled),
        (80001, None, Throttled),
        (80002, None, Throttled),
        (80006, None, Throttled),
        (80014, None, Throttled),
        (1, None, GraphUnavailable),
        (1, 99, GraphUnavailable),
        (2, None, GraphUnavailable),
        (2, 33, GraphUnavailable),
        # Not in the table: we do not guess.
        *[(code, None, GraphUnavailable) for code in (0, -1, 33, 199, 300, 9011)],
        *[(code, None, GraphUnavailable) for code in (552, 79999, 80015, 2534014)],
        (None, None, GraphUnavailable),
        (None, 33, GraphUnavailable),
    ],
)
def test_a_code_and_a_subcode_decide(
    code: int | None, subcode: int | None, means: object
) -> None:
    """The more exact row first, and nothing else is needed."""
    taken_for = meaning_of_error(code, subcode)

    assert taken_for == means


@pytest.mark.parametrize("is_transient", [True, False])
@pytest.mark.parametrize(
    ("code", "means"),
    [
        (1, GraphUnavailable),
        (2, GraphUnavailable),
        (4, Throttled),
        (77, GraphUnavailable),
    ],
)
def test_is_transient_does_not_change_what_a_failure_is(
    code: int, means: object, is_transient: bool
) -> None:
    """Codes 1 and 2 say false at times, and code 4 says true."""
    taken_for = meaning_of_error(code, is_transient=is_transient)

    assert taken_for is means


@pytest.mark.parametrize(
    ("code", "subcode"),
    [(230, None), (551, None), (9010, None), (100, 2534014), (100, 33), (803, None)],
)
@pytest.mark.parametrize("is_transient", [True, 1, "true"])
def test_a_refusal_that_is_transient_is_kept_against_nobody(
    code: int, subcode: int | None, is_transient: object
) -> None:
    """What will pass is no fact about a person."""
    taken_for = meaning_of_error(code, subcode, is_transient=is_transient)

    assert taken_for is GraphUnavailable


@pytest.mark.parametrize(
    ("blocked", "code", "subcode", "means"),
    [
        ({(551, None)}, 551, None, Reason.BLOCKED),
        ({(551, None)}, 551, 7, Reason.BLOCKED),
        (set(), 551, None, Reason.BLOCKED),
        ({(100, 33)}, 551, 7, Reason.BLOCKED),
        ({(100, 33)}, 100, 33, Reason.BLOCKED),
        ({(100, 33)}, 100, 2534014, Reason.NOT_FOUND),
        ({(100, 33)}, 100, None, PermissionMissing),
        ({(9010, None)}, 9010, None, Reason.BLOCKED),
        ({(77, 7)}, 77, None, GraphUnavailable),
        ({(77, 7)}, 77, 7, Reason.BLOCKED),
    ],
)
def test_the_operator_says_which_codes_mean_blocked(
    blocked: set[tuple[int, int | None]], code: int, subcode: int | None, means: object
) -> None:
    """Beside 551: nobody has seen what Meta says of who blocked the business."""
    error = {"message": "", "code": code} | (
        {"error_subcode": subcode} if subcode else {}
    )

    taken_for = meaning(as_sent({"error": error}), blocked=frozenset(blocked))

    assert taken_for == means


@pytest.mark.parametrize(
    ("code", "subcode", "may"),
    [
        *[(code, None, True) for code in (551, 9010, 803, 77)],
        *[(code, 7, True) for code in (551, 9010, 100, 77)],
        *[(code, None, False) for code in (100, 230, 190, 2500, 10, 200, 368, 4, 2)],
        *[(code, 33, False) for code in (230, 190, 10, 200, 4, 613, 80002, 1, 2)],
    ],
)
def test_what_is_known_not_to_be_about_one_person_may_not_mean_blocked(
    code: int, subcode: int | None, may: bool
) -> None:
    """A dead token must never become a crowd of refusals."""
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
def test_what_looks_personal_but_is_about_the_app_is_kept_against_nobody(
    code: int, message: str
) -> None:
    """Else one lost permission would look like a crowd of refusals."""
    taken_for = meaning_of_error(code, message=message)

    assert taken_for is PermissionMissing


@pytest.mark.parametrize(
    "message",
    [
        "(#230) User consent is required to access user profile",
        "User consent is REQUIRED",
        "O consentimento do usu\u00e1rio \u00e9 necess\u00e1rio",
        "",
    ],
)
def test_consent_that_is_required_is_no_permission(message: str) -> None:
    """In any language, and with no words at all."""
    taken_for = meaning_of_error(230, message=message)

    assert taken_for is Reason.CONSENT_REQUIRED


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("type_", [None, "IGApiException", "GraphMethodException", 7])
def test_the_type_of_an_error_plays_no_role(
    error: dict[str, Any], type_: object
) -> None:
    """Nearly every failure says OAuthException, a dead token or not."""
    retyped = {"error": error["error"] | {"type": type_}}

    assert meaning(as_sent(retyped)) == meaning(as_sent(error))


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_every_key_but_the_codes_and_the_message_may_be_missing(
    error: dict[str, Any],
) -> None:
    """Replies without type and without trace have been seen."""
    needed = {"message", "code", "error_subcode"}
    bare = {"error": {k: v for k, v in error["error"].items() if k in needed}}

    assert meaning(as_sent(bare)) == meaning(as_sent(error))


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_with_nothing_but_a_message_is_kept_against_nobody(
    error: dict[str, Any],
) -> None:
    """One such reply was seen. Words alone decide nothing."""
    wordy = {"error": {"message": error["error"]["message"]}}

    assert meaning(as_sent(wordy)) is GraphUnavailable


def test_an_error_need_not_have_a_message() -> None:
    """The codes are enough."""
    taken_for = meaning(as_sent({"error": {"code": 9010}}))

    assert taken_for is Reason.NOT_FOUND


@pytest.mark.parametrize("code", ["230", 230.0, True, None, [230], {"code": 230}])
def test_a_code_that_is_no_whole_number_is_kept_against_nobody(code: object) -> None:
    """It is not the form we know, so we do not guess."""
    taken_for = meaning(as_sent({"error": {"message": "", "code": code}}))

    assert taken_for is GraphUnavailable


@pytest.mark.parametrize("subcode", ["33", 33.0, True, [33]])
def test_a_subcode_that_is_no_whole_number_was_not_told(subcode: object) -> None:
    """It is written down, so it has to be one."""
    error = {"message": "", "code": 9010, "error_subcode": subcode}

    outcome = read_reply(as_sent({"error": error}), ADA, BLOCKED)

    assert outcome == Refusal(ADA, Reason.NOT_FOUND, GraphError(9010, None, None))


@pytest.mark.parametrize("error", [None, [], "broken", 1, True, {}])
def test_an_error_that_is_no_description_is_kept_against_nobody(error: object) -> None:
    """Not even where a good profile stands beside it."""
    taken_for = meaning(as_sent({"id": ADA, "name": "Ada", "error": error}))

    assert taken_for is GraphUnavailable


def test_an_error_beside_a_profile_wins() -> None:
    """Whatever came with it, and whatever the status was."""
    error = {"message": "Invalid OAuth access token.", "code": 190}

    taken_for = meaning(as_sent({"id": ADA, "name": "Ada", "error": error}))

    assert taken_for is TokenRejected


def test_a_refusal_keeps_what_meta_said() -> None:
    """Its codes and the trace that Meta's support asks for."""
    body = as_sent(RECORDED["object-does-not-exist-100-33"]["body"])

    outcome = read_reply(body, ADA, BLOCKED)

    said = GraphError(100, 33, "A7qVRrTcBm8Pt6iUvnBrxwf")
    assert outcome == Refusal(ADA, Reason.UNAVAILABLE, said)


def test_a_failure_keeps_what_meta_said() -> None:
    """As a refusal does."""
    body = as_sent(RECORDED["token-app-not-authorized-190-458"]["body"])

    with pytest.raises(TokenRejected) as raised:
        read_reply(body, ADA, BLOCKED)

    assert raised.value.said == GraphError(190, 458, "A3pz5DCfhBg3mGCS6Z9z9zY")


def test_a_refused_picture_keeps_what_meta_said() -> None:
    """It becomes a failure if the second call fares no better."""
    body = as_sent({"error": ERRORS["nonexisting-field-profile-pic-100"]["error"]})

    with pytest.raises(PictureRefused) as raised:
        read_reply(body, ADA, BLOCKED)

    assert raised.value.said == GraphError(100, None, None)


@pytest.mark.parametrize(
    "trace", [7, None, "", "a b", "line\nbreak", "<script>", "é", "x" * 65, ["AbC"]]
)
def test_a_trace_that_is_none_is_left_out(trace: object) -> None:
    """It goes into logs and answers, so it has to look like one."""
    body = as_sent({"error": {"message": "", "code": 9010, "fbtrace_id": trace}})

    outcome = read_reply(body, ADA, BLOCKED)

    assert isinstance(outcome, Refusal)
    assert outcome.said.fbtrace_id is None


# A profile.


def test_a_profile_is_read_with_all_its_fields() -> None:
    """Under our one name each, and with the end of its picture."""
    picture = "https://scontent.cdninstagram.com/v/t51/ada.jpg?oh=00_Af&oe=6A842163"

    profile = read(
        name="Ada \N{SPARKLES}",
        username="ada",
        profile_pic=picture,
        is_verified_user=True,
        follower_count=12,
        is_user_follow_business=True,
        is_business_follow_user=False,
    )

    assert profile == Profile(
        igsid=ADA,
        name="Ada \N{SPARKLES}",
        username="ada",
        profile_pic=picture,
        is_verified_user=True,
        follower_count=12,
        is_user_follow_business=True,
        is_business_follow_user=False,
        picture_expires_at=1787044195.0,
    )


NOTHING_TOLD = Profile(ADA, None, None, None, None, None, None, None, None)


@pytest.mark.parametrize("body", [{}, dict.fromkeys(FIELDS), {"bio": "unasked"}])
def test_what_meta_does_not_say_is_not_told(body: dict[str, Any]) -> None:
    """Graph leaves a field out as readily as it says null."""
    profile = read(**body)

    assert profile == NOTHING_TOLD


def test_zero_and_false_and_empty_are_told() -> None:
    """They are answers, not the lack of one."""
    profile = read(name="", follower_count=0, is_verified_user=False)

    assert (profile.name, profile.follower_count) == ("", 0)
    assert profile.is_verified_user is False


def test_an_empty_picture_is_none() -> None:
    """There is nothing to load."""
    profile = read(profile_pic="")

    assert profile == NOTHING_TOLD


@pytest.mark.parametrize("body", [{"name": "Ada"}, {"name": "Ada", "id": None}])
def test_a_profile_may_lack_its_id(body: dict[str, Any]) -> None:
    """One live reply did. It is whom we asked for."""
    outcome = read_reply(as_sent(body), ADA, BLOCKED)

    assert outcome.igsid == ADA


@pytest.mark.parametrize(
    ("name", "read_as"),
    [
        ("Ada \ud83d", "Ada \ufffd"),
        ("\udc4b Ada", "\ufffd Ada"),
        ("\udc4b\ud83d", "\ufffd\ufffd"),
        ("Ada \ud83d\udc4b", "Ada \N{WAVING HAND SIGN}"),
    ],
)
def test_half_an_emoji_does_not_cost_the_profile(name: str, read_as: str) -> None:
    """Meta escapes an emoji as a pair, and a name can be cut in its middle."""
    profile = read(name=name, username=name)

    assert (profile.name, profile.username) == (read_as, read_as)


# Garbage.


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "1254009999999999"},
        {"id": int(ADA)},
        {"id": ADA + " "},
        {"id": [ADA]},
        {"id": "\ud800"},
        {"name": 1},
        {"name": ["Ada"]},
        {"name": {"first": "Ada"}},
        {"name": True},
        {"username": 1},
        {"profile_pic": 1},
        {"profile_pic": {"data": {"url": "https://scontent.cdninstagram.com/a"}}},
        {"profile_pic": "javascript:alert(1)"},
        {"profile_pic": "//scontent.cdninstagram.com/a.jpg"},
        {"profile_pic": "data:image/png;base64,AAAA"},
        {"is_verified_user": "true"},
        {"is_verified_user": 1},
        {"follower_count": "12"},
        {"follower_count": 12.5},
        {"follower_count": -1},
        {"follower_count": True},
        {"follower_count": 2**53},
        {"follower_count": 10**4000},
        {"follower_count": float("nan")},
        {"follower_count": float("inf")},
        {"is_user_follow_business": "no"},
        {"is_business_follow_user": []},
    ],
    ids=lambda fields: str(fields)[:50],
)
def test_a_field_of_another_type_spoils_the_reply(fields: dict[str, Any]) -> None:
    """Half understood is not understood: nothing of it is kept."""
    taken_for = meaning(as_sent({"id": ADA, "name": "Ada"} | fields))

    assert taken_for is GraphUnavailable


GOOD = as_sent({"id": ADA, "name": "Zo\u00eb", "follower_count": 12})


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
        b"[" + GOOD + b"]",
        b'{"success":true}',
        b'{"data":' + GOOD + b"}",
        b'{"id":""}',
        b"<!DOCTYPE html><title>Facebook | Error</title>",
        b"URL signature expired",
        GOOD[:-1],
        GOOD[: len(GOOD) // 2],
        GOOD + GOOD,
        GOOD + b"\x00",
        b'{"id":"%s","name":"\xff"}' % ADA.encode(),
        b'{"id":"%s","name":"\xc3"}' % ADA.encode(),
        b"\xff\xfe" + GOOD,
        GOOD.decode().encode("utf-16")[:-1],
        b"\x1f\x8b\x08\x00" + GOOD,
        b'{"id":"%s","follower_count":%s}' % (ADA.encode(), b"9" * 5000),
        b'{"id":"%s","follower_count":1e999}' % ADA.encode(),
        b'{"id":"%s","follower_count":NaN}' % ADA.encode(),
        b"[" * 200_000,
        b'{"name":' * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_reply_that_is_no_profile_tells_nothing(body: bytes) -> None:
    """With a status of 200, too, as has been seen."""
    taken_for = meaning(body)

    assert taken_for is GraphUnavailable


@pytest.mark.parametrize("key", ["\ud800", "\udfff", "a\ud83d"])
def test_half_a_pair_in_a_key_that_nobody_asked_for_is_no_bug(key: str) -> None:
    """The profile beside it may be read or not, but a lookup must not crash."""
    taken_for = meaning(as_sent({"id": ADA, "name": "Ada", key: 1}))

    assert taken_for in (Profile, GraphUnavailable)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_another_encoding_is_read_right_or_not_at_all(encoding: str) -> None:
    """RFC 8259 wants UTF-8; what is understood anyway is understood whole."""
    body = json.dumps({"id": ADA, "name": "Zo\u00eb"}, ensure_ascii=False)

    try:
        name = getattr(read_reply(body.encode(encoding), ADA, BLOCKED), "name", None)
    except GraphUnavailable:
        return

    assert name == "Zo\u00eb"


# Whatever comes.

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
words = st.lists(
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
        "message": words | anything,
        "type": anything,
        "code": codes | anything,
        "error_subcode": subcodes | anything,
        "is_transient": anything,
        "fbtrace_id": anything,
        "error_data": anything,
    },
).map(lambda error: {"error": error})


def check_that_it_is_an_answer_or_a_failure(body: bytes) -> None:
    try:
        outcome = read_reply(body, ADA, BLOCKED)
    except (LookupFailure, PictureRefused):
        return
    assert isinstance(outcome, Profile | Refusal)
    assert outcome.igsid == ADA
    json.dumps(asdict(outcome), ensure_ascii=False, allow_nan=False).encode()


@given(st.binary(max_size=200))
@example(b"\xed\xa0\x80")
def test_any_bytes_are_an_answer_or_a_failure(body: bytes) -> None:
    """Never a bug of ours."""
    check_that_it_is_an_answer_or_a_failure(body)


@given(anything | nearly_profiles | nearly_errors)
@example({"id": ADA, "name": "Ada", "\ud800": 1})
@example({"id": ADA, "name": "Ada", "follower_count": 10**4000})
@example({"error": {"code": 230, "error_subcode": 2**64}})
def test_any_json_is_an_answer_about_the_person_or_a_failure(value: Any) -> None:
    """And an answer can be written as JSON in UTF-8, to the store and the caller."""
    check_that_it_is_an_answer_or_a_failure(as_sent(value))


@given(codes, st.none() | subcodes, words)
def test_words_only_ever_make_us_more_careful(
    code: int, subcode: int | None, message: str
) -> None:
    """They may be localised, so no refusal hangs on them."""
    silent = meaning_of_error(code, subcode)

    told = meaning_of_error(code, subcode, message)

    assert told == silent or told in (PermissionMissing, PictureRefused)


@given(
    codes | numbers,
    st.none() | subcodes,
    words,
    st.sampled_from(["message", "type", "error_user_title", "error_user_msg"]),
)
def test_what_raises_repeats_no_word_of_meta(
    code: float, subcode: int | None, message: str, key: str
) -> None:
    """Messages have been seen carrying ids and tokens."""
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
        {"id": SECRET},
        {"id": ADA, "name": [SECRET]},
        {"id": ADA, "profile_pic": SECRET},
        {"id": ADA, "is_verified_user": SECRET},
    ],
    ids=str,
)
def test_a_reply_that_makes_no_sense_is_not_quoted(value: Any) -> None:
    """It may be half a good one, with a name in it."""
    body = json.dumps(value).encode()

    with pytest.raises(GraphUnavailable) as raised:
        read_reply(body, ADA, BLOCKED)

    shown = "".join(traceback.format_exception(raised.value))
    assert SECRET not in shown + repr(raised.value)
