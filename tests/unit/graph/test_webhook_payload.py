"""Webhooks: every recorded one, and shapes that Meta has not sent yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.webhook_update import Update, UpdateKind, UpdateResult
from proxy.graph.webhook_payload import read_updates

RECORDED = Path(__file__).parents[2] / "fixtures" / "graph"
ACCOUNT = "17841400000000000"
ADA = "1254001234567890"

WRITTEN, IGNORED = UpdateResult.WRITTEN, UpdateResult.IGNORED
UNREADABLE = UpdateResult.UNREADABLE

MESSAGE_OF_ADA = Update(UpdateKind.MESSAGE, WRITTEN, ADA, ACCOUNT)
POSTBACK_OF_ADA = Update(UpdateKind.POSTBACK, WRITTEN, ADA, ACCOUNT)

MEANINGS = {
    "message-text": [MESSAGE_OF_ADA],
    "message-edit-is-new": [MESSAGE_OF_ADA],
    "changes-messages": [MESSAGE_OF_ADA],
    "numeric-ids": [Update(UpdateKind.MESSAGE, UNREADABLE), MESSAGE_OF_ADA],
    "postback-icebreaker": [POSTBACK_OF_ADA],
    "postback-from-ad": [POSTBACK_OF_ADA],
    "standby": [Update(UpdateKind.MESSAGE, WRITTEN, "8422400000000597", ACCOUNT)],
    "echo": [Update(UpdateKind.ECHO, IGNORED)],
    "self-message": [Update(UpdateKind.SELF, IGNORED)],
    "reaction": [Update(UpdateKind.REACTION, IGNORED)],
    "seen-doc": [Update(UpdateKind.SEEN, IGNORED)],
    "dashboard-test": [Update(UpdateKind.MESSAGE, IGNORED)],
}


def body_of(*events: Any, under: str = "messaging", **entry: Any) -> bytes:
    """Return a webhook with *events* in the list *under*."""
    whole = {"time": 1, "id": ACCOUNT, under: list(events)} | entry
    return json.dumps({"object": "instagram", "entry": [whole]}).encode()


def a_message(sender: Any = ADA, **message: Any) -> dict[str, Any]:
    return {"sender": {"id": sender}, "message": {"mid": "m", "text": "Hi"} | message}


def from_ada(**what: Any) -> dict[str, Any]:
    return {"sender": {"id": ADA}, "recipient": {"id": ACCOUNT}} | what


def envelopes_of(event: dict[str, Any]) -> list[bytes]:
    """Return *event* in each envelope that Meta uses."""
    change = {"field": "messages", "value": event}
    return [
        body_of(event),
        body_of(event, under="standby"),
        body_of(change, under="changes"),
        body_of(change | {"field": "messaging_postbacks"}, under="changes"),
        json.dumps(change).encode(),
    ]


def test_every_recorded_webhook_has_a_meaning() -> None:
    """A new recording needs a row in MEANINGS."""
    names = {path.stem.removeprefix("webhook-") for path in RECORDED.glob("webhook-*")}

    assert names == {*MEANINGS, "signature-vector"}


@pytest.mark.parametrize("name", MEANINGS)
def test_recorded_webhook_has_its_meaning(name: str) -> None:
    """A sender who wrote to the business, or a kind that is ignored."""
    recorded = json.loads((RECORDED / f"webhook-{name}.json").read_text())

    updates = read_updates(json.dumps(recorded["body"]).encode())

    assert updates == MEANINGS[name]


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (a_message(is_deleted=True), UpdateKind.DELETED),
        (a_message(is_echo=True, is_self=True), UpdateKind.ECHO),
        (a_message(is_self=True), UpdateKind.SELF),
        (from_ada(postback={"mid": "m", "is_self": True}), UpdateKind.SELF),
        (from_ada(message_edit={"num_edit": 0, "is_self": True}), UpdateKind.SELF),
        (from_ada(message_edit={"num_edit": 0, "is_echo": True}), UpdateKind.ECHO),
        (from_ada(message_edit={"mid": "m", "num_edit": 1}), UpdateKind.EDIT),
        ({"message_edit": {"mid": "m"}}, UpdateKind.EDIT),
        ({"message_edit": {"mid": "m", "num_edit": 0}}, UpdateKind.EDIT),
        *[
            (from_ada(message_edit={"num_edit": number}), UpdateKind.EDIT)
            for number in (1, 2, -1, None, False, "", [], {})
        ],
        (from_ada(message_edit=0), UpdateKind.EDIT),
        ({"read": {"mid": "m"}}, UpdateKind.SEEN),
        (from_ada(reaction={"mid": "m", "action": "unreact"}), UpdateKind.REACTION),
        (from_ada(referral={"ref": "r", "source": "ADS"}), UpdateKind.REFERRAL),
        (from_ada(delivery={"mids": ["m"]}), UpdateKind.OTHER),
        (from_ada(message=None, read={"mid": "m"}), UpdateKind.SEEN),
        (from_ada(message="text"), UpdateKind.OTHER),
        (from_ada(postback=None), UpdateKind.OTHER),
        ({}, UpdateKind.OTHER),
    ],
    ids=str,
)
def test_event_that_gives_no_consent_is_ignored(event, kind) -> None:
    """Its kind is kept for the metrics, in whichever envelope it comes."""
    for body in envelopes_of(event):
        assert read_updates(body) == [Update(kind, IGNORED)]


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (a_message(), UpdateKind.MESSAGE),
        (from_ada(message_edit={"mid": "m", "num_edit": 0}), UpdateKind.MESSAGE),
        (from_ada(postback={"mid": "m"}), UpdateKind.POSTBACK),
        (
            from_ada(postback={"mid": "m", "referral": {"source": "ADS"}}),
            UpdateKind.POSTBACK,
        ),
    ],
    ids=str,
)
def test_event_by_which_a_person_writes_has_a_sender(event, kind) -> None:
    """In whichever envelope it comes."""
    event = event | {"recipient": {"id": ACCOUNT}}

    for body in envelopes_of(event):
        assert read_updates(body) == [Update(kind, WRITTEN, ADA, ACCOUNT)]


@pytest.mark.parametrize(
    "change",
    [
        {"field": "comments", "value": {"from": {"id": ADA}, "text": "Nice"}},
        {"field": "comments", "value": a_message()},
        {"field": "message_reactions", "value": a_message()},
        {"field": ["messages"], "value": a_message()},
        {"value": a_message()},
        {"field": "messages"},
        {"field": "messages", "value": [a_message()]},
    ],
    ids=str,
)
def test_change_that_is_no_event_is_ignored(change) -> None:
    """The author of a comment has not written to the business."""
    updates = read_updates(body_of(changes=[change]))

    assert updates == [Update(UpdateKind.CHANGE, IGNORED)]


def test_change_of_the_dashboard_s_test_button_is_ignored() -> None:
    """It has Meta's sample ids, and neither ``object`` nor ``entry``."""
    sample = {
        "sender": {"id": "12334"},
        "recipient": {"id": "23245"},
        "timestamp": "1527459824",
        "message": {"mid": "random_mid", "text": "random_text"},
    }

    updates = read_updates(json.dumps({"field": "messages", "value": sample}).encode())

    assert updates == [Update(UpdateKind.MESSAGE, IGNORED)]


@pytest.mark.parametrize(
    "ids",
    [
        {"sender": ACCOUNT, "account": ACCOUNT, "recipient": "17841400000000001"},
        {"sender": int(ACCOUNT), "account": ACCOUNT, "recipient": None},
        {"sender": ACCOUNT, "account": int(ACCOUNT), "recipient": None},
        {"sender": ACCOUNT, "account": None, "recipient": ACCOUNT},
        {"sender": ACCOUNT, "account": "17841400000000001", "recipient": ACCOUNT},
    ],
    ids=str,
)
def test_message_of_the_account_itself_is_ignored(ids) -> None:
    """A business that writes to itself is no person."""
    event = a_message(ids["sender"]) | {"recipient": {"id": ids["recipient"]}}

    updates = read_updates(body_of(event, id=ids["account"]))

    assert updates == [Update(UpdateKind.MESSAGE, IGNORED)]


@pytest.mark.parametrize(
    "message",
    [
        {"attachments": [{"type": "image", "payload": {"url": "https://x"}}]},
        {"is_unsupported": True},
        {"quick_reply": {"payload": "p"}},
        {"is_echo": False, "is_deleted": False},
        {"text": "half an emoji \ud83c"},
    ],
    ids=str,
)
def test_any_message_to_the_business_has_a_sender(message: dict[str, Any]) -> None:
    """Its content does not matter for consent."""
    updates = read_updates(body_of(a_message(**message)))

    assert updates == [Update(UpdateKind.MESSAGE, WRITTEN, ADA, ACCOUNT)]


@pytest.mark.parametrize(
    "sender",
    [
        1254001234567890.0,
        1.25e15,
        True,
        1234,
        10**25,
        10**4000,
        -1254001234567890,
        "",
        "1234",
        "1" * 26,
        "１２５４００１",
        " 12345",
        None,
        ["1"],
    ],
    ids=ascii,
)
def test_message_with_an_invalid_sender_id_is_unreadable(sender: object) -> None:
    """An id as a number may have lost its last digits, and belong to another person."""
    updates = read_updates(body_of(a_message(sender)))

    assert updates == [Update(UpdateKind.MESSAGE, UNREADABLE)]


@pytest.mark.parametrize("sender", [{}, None, "12345", ["12345"]], ids=str)
def test_message_without_a_sender_is_unreadable(sender: object) -> None:
    """Meta has sent such; other messages in the same body are read all the same."""
    missing = a_message() | {"sender": sender}

    updates = read_updates(body_of(missing, a_message()))

    assert updates == [
        Update(UpdateKind.MESSAGE, UNREADABLE),
        Update(UpdateKind.MESSAGE, WRITTEN, ADA, ACCOUNT),
    ]


@pytest.mark.parametrize(
    "igsid", ["12345", "1254001234567890", "12540012345678901", "9" * 25], ids=len
)
def test_integer_is_exact_as_an_id(igsid: str) -> None:
    """At any length of an id, of sender, recipient and account."""
    event = a_message(int(igsid)) | {"recipient": {"id": int(ACCOUNT)}}

    for account in (int(ACCOUNT), None):
        [update] = read_updates(body_of(event, id=account))

        assert update == Update(UpdateKind.MESSAGE, WRITTEN, igsid, ACCOUNT)


@pytest.mark.parametrize("account", [None, ["1"], {}, 1.5, True, ""], ids=str)
def test_entry_without_an_account_is_of_the_recipient(account: object) -> None:
    """Without one either, the sender is read all the same."""
    addressed = a_message() | {"recipient": {"id": ACCOUNT}}

    updates = read_updates(body_of(a_message(), addressed, id=account))

    assert updates == [
        Update(UpdateKind.MESSAGE, WRITTEN, ADA, None),
        Update(UpdateKind.MESSAGE, WRITTEN, ADA, ACCOUNT),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"instagram"',
        b"\xff\xfe",
        b"[" * 1_000_000,
        b'{"object":' * 50_000,
        b'{"field":7,"object":null}',
        b'{"object":"page","entry":[]}',
        b'{"entry":[]}',
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
def test_body_that_is_not_an_instagram_webhook_is_none(body: bytes) -> None:
    """And raises no error, at any depth or length."""
    assert read_updates(body) is None


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        10**4000,
        [None],
        [[]],
        [{}],
        [{"messaging": None}],
        [{"messaging": [None, 7]}],
    ],
    ids=str,
)
def test_webhook_without_events_has_no_updates(entry: object) -> None:
    """It is a webhook all the same."""
    body = json.dumps({"object": "instagram", "entry": entry}).encode()

    assert read_updates(body) == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("id", "sender", "message", "postback", "read", "is_echo"),
                    *("messaging", "standby", "changes", "field", "value"),
                    *("recipient", "message_edit", "num_edit", "is_self"),
                ]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(anything)
def test_any_json_in_an_entry_raises_no_error(entry: object) -> None:
    """And only a message that was written has a sender."""
    bodies = [{"object": "instagram", "entry": [entry]}, {"field": "messages"}]
    bodies[1]["value"] = entry

    for body in bodies:
        for update in read_updates(json.dumps(body).encode()) or []:
            assert (update.sender is not None) == (update.result is WRITTEN)
