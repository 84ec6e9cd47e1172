"""Scripts: how they are read, and how often they apply."""

import json
from typing import Any

import pytest

from proxy.simulator.graph import answer, read_call
from proxy.simulator.pictures import Album
from proxy.simulator.reading import BadRequest
from proxy.simulator.replies import Reply
from proxy.simulator.scenario import Rules, Scenario, TokenDeath
from proxy.simulator.scripts import Script, read_script

NOW = 1_795_000_000.0
ADA, BEN = "1254001000000001", "1254001000000002"
RULES = Rules("EAATEST")


def play(igsid: str, rules: Rules = RULES, **script: object) -> Reply:
    """Return the reply about *igsid* under that script."""
    target = f"/v25.0/{igsid}?fields=name,profile_pic"
    return answer(
        read_call("GET", target, "Bearer EAATEST"),
        rules,
        Album("http://127.0.0.1:9100"),
        script=read_script(script, igsid, NOW),
        nth=1,
        this_hour=1,
        trace="A",
        now=NOW,
    )


def test_scripted_profile_makes_any_person_consent() -> None:
    """It is merged over the person's own, which a refusal hides."""
    reply = play(BEN, profile={"name": "Benjamin"})

    profile = json.loads(reply.body)
    assert profile["name"] == "Benjamin"
    assert profile["profile_pic"].startswith("http://127.0.0.1:9100/pictures/")


def test_scripted_profile_can_have_another_id() -> None:
    """So that a test can send another person's profile."""
    reply = play(ADA, profile={"id": "1"})

    assert json.loads(reply.body)["id"] == "1"


def test_unknown_person_can_get_a_profile() -> None:
    """Fields that the script omits are made from the id."""
    reply = play("1254009000000001", profile={"profile_pic": None})

    assert reply.status == 200 and json.loads(reply.body)["name"]


@pytest.mark.parametrize(
    ("script", "body"),
    [
        ({"body": {"name": "\u00e9/"}}, b'{"name":"\\u00e9\\/"}'),
        ({"body": None}, b"null"),
        ({"raw": "<html>\u00e9"}, b"<html>\xc3\xa9"),
        ({"raw_base64": "AP8="}, b"\x00\xff"),
    ],
)
def test_scripted_body_is_sent_unchanged(script: dict[str, Any], body: bytes) -> None:
    """JSON is escaped as Meta does; raw text and bytes stay as they are."""
    assert play(ADA, **script).body == body


def test_scripted_status_and_headers_replace_the_usual() -> None:
    """A header that is null is omitted."""
    headers = {"Content-Type": "text/html", "x-fb-rev": None}

    reply = play(ADA, status=502, raw="<html>", headers=headers)

    assert (reply.status, reply.headers["content-type"]) == (502, "text/html")
    assert "x-fb-rev" not in reply.headers


def test_script_has_no_effect_on_a_dead_token() -> None:
    """It replaces the person, not the caller."""
    reply = play(ADA, Rules("EAATEST", death=TokenDeath(463, NOW)), body={})

    assert json.loads(reply.body)["error"]["code"] == 190


def test_scripted_error_can_have_its_own_text() -> None:
    """Code 230 has two meanings, which only the message distinguishes."""
    message = "(#230) Requires pages_messaging permission to manage the object"

    reply = play(ADA, error={"code": 230, "message": message, "type": "X"})

    error = json.loads(reply.body)["error"]
    assert (reply.status, error["message"], error["type"]) == (403, message, "X")


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ({"stats": 200}, "stats"),
        ({"status": "200"}, "status"),
        ({"status": 99}, "status"),
        ({"delay": -1}, "delay"),
        ({"delay": True}, "delay"),
        ({"times": 0}, "times"),
        ({"wire": "slowly"}, "wire"),
        ({"error": {}}, "code"),
        ({"error": {"code": 1, "cod": 1}}, "cod"),
        ({"headers": {"a": "b\r\nc: d"}}, "'a'"),
        ({"headers": {"a:b": "c"}}, "a:b"),
        ({"raw_base64": "%"}, "raw_base64"),
        ({"body": {}, "raw": ""}, "body, raw"),
        ({"profile": []}, "profile"),
        ([], "object"),
    ],
)
def test_invalid_script_error_names_the_key(script: object, named: str) -> None:
    """A test that misspells a key must not pass by accident."""
    with pytest.raises(BadRequest, match=named):
        read_script(script, ADA, NOW)


def test_script_applies_the_number_of_times_it_sets() -> None:
    """After that the person is as before."""
    scenario = Scenario(RULES)
    scenario.set_script(ADA, Script(times=2))

    taken = [scenario.take_script(ADA) is not None for _ in range(3)]

    assert taken == [True, True, False]
    assert scenario.scripted() == []


def test_reset_restores_the_start() -> None:
    """The token, the scripts and the fields."""
    scenario = Scenario(RULES)
    scenario.set_script(ADA, Script())
    scenario.change(token="NEW", missing_fields=frozenset({"name"}))

    scenario.reset()

    assert scenario.rules == RULES and scenario.take_script(ADA) is None


def test_release_ends_earlier_hangs_and_no_later_ones() -> None:
    """A call takes its event before it is counted."""
    scenario = Scenario(RULES)
    before = scenario.release_event()

    scenario.release()

    assert before.is_set() and not scenario.release_event().is_set()
