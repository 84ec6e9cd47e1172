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

MEANINGS = {
    "message-text": Update(UpdateKind.MESSAGE, WRITTEN, ADA, ACCOUNT),
    "postback-icebreaker": Update(UpdateKind.POSTBACK, WRITTEN, ADA, ACCOUNT),
    "standby": Update(UpdateKind.MESSAGE, WRITTEN, "8422400000000597", ACCOUNT),
    "echo": Update(UpdateKind.ECHO, IGNORED),
    "reaction": Update(UpdateKind.REACTION, IGNORED),
    "seen-doc": Update(UpdateKind.SEEN, IGNORED),
    "dashboard-test": Update(UpdateKind.MESSAGE, IGNORED),
}


def body_of(*events: Any, under: str = "messaging", **entry: Any) -> bytes:
    """Return a webhook with *events* in the list *under*."""
    whole = {"time": 1, "id": ACCOUNT, under: list(events)} | entry
    return json.dumps({"object": "instagram", "entry": [whole]}).encode()


def a_message(sender: Any = ADA, **message: Any) -> dict[str, Any]:
    return {"sender": {"id": sender}, "message": {"mid": "m", "text": "Hi"} | message}


def from_ada(**what: Any) -> dict[str, Any]:
    return {"sender": {"id": ADA}, "recipient": {"id": ACCOUNT}} | what


def test_every_recorded_webhook_has_a_meaning() -> None:
    """A new recording needs a row in MEANINGS."""
    names = {path.stem.removeprefix("webhook-") for path in RECORDED.glob("webhook-*")}

    assert names == {*MEANINGS, "signature-vector"}


@pytest.mark.parametrize("name", MEANINGS)
def test_recorded_webhook_has_its_meaning(name: str) -> None:
    """A sender who wrote to the business, or a kind that is ignored."""
    recorded = json.loads((RECORDED / f"webhook-{name}.json").read_text())

    updates = read_updates(json.dumps(recorded["body"]).encode())

    assert updates == [MEANINGS[name]]


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (a_message(is_deleted=True), UpdateKind.DELETED),
        (a_message(is_echo=True, is_self=True), UpdateKind.ECHO),
        (from_ada(message_edit={"mid": "m", "num_edit": 1}), UpdateKind.EDIT),
        ({"message_edit": {"mid": "m"}}, UpdateKind.EDIT),
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
@pytest.mark.parametrize("under", ["messaging", "standby"])
def test_event_that_gives_no_consent_is_ignored(event, kind, under) -> None:
    """Its kind is kept for the metrics."""
    assert read_updates(body_of(event, under=under)) == [Update(kind, IGNORED)]


def test_comment_is_ignored() -> None:
    """Its author has not written to the business."""
    change = {"field": "comments", "value": {"from": {"id": ADA}, "text": "Nice"}}

    updates = read_updates(body_of(changes=[change]))

    assert updates == [Update(UpdateKind.CHANGE, IGNORED)]


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
        1254001234567890,
        1.25e15,
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


@pytest.mark.parametrize("account", [17841400000000000, None, ["1"], {}], ids=str)
def test_account_that_is_not_text_is_none(account: object) -> None:
    """The sender is read all the same, and wrote to the default Page."""
    [update] = read_updates(body_of(a_message(), id=account))

    assert update == Update(UpdateKind.MESSAGE, WRITTEN, ADA, None)


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
        b'{"object":"instagram","entry":' + b"9" * 5000 + b"}",
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
    [None, {}, [None], [[]], [{}], [{"messaging": None}], [{"messaging": [None, 7]}]],
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
                    *("messaging", "standby", "changes"),
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
    body = json.dumps({"object": "instagram", "entry": [entry]}).encode()

    for update in read_updates(body) or []:
        assert (update.sender is not None) == (update.result is WRITTEN)
