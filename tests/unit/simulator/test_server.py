"""The simulator over HTTP, and its control."""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from proxy.simulator.server import DEFAULT_TOKEN
from tests.helpers.simulator_client import ADA, BEARER, BEN, Client, profile_target


def test_one_connection_serves_many_calls(meta: Client) -> None:
    """Keep-alive, also over control calls, errors and pictures."""
    line = meta.open()
    line.connect()
    first = line.sock
    statuses = []
    for target in (profile_target(ADA), profile_target(BEN), "/_sim/health"):
        line.request("GET", target, headers=BEARER)
        reply = line.getresponse()
        reply.read()
        statuses.append(reply.status)

    assert statuses == [200, 403, 200] and line.sock is first
    line.close()


def test_a_picture_url_leads_back_here(meta: Client) -> None:
    """The link in a profile can be followed."""
    url = urlsplit(json.loads(meta.profile()[1])["profile_pic"])

    line = meta.open()
    line.request("GET", f"{url.path}?{url.query}")
    reply = line.getresponse()

    assert (url.port, reply.status) == (meta.port, 200)
    assert reply.headers["content-type"] == "image/svg+xml" and reply.read()
    line.close()


def test_waiting_for_a_call_ends_when_it_comes(
    meta: Client, later: ThreadPoolExecutor
) -> None:
    """And with 408 when none does."""
    waiting: Future[tuple[int, Any]] = later.submit(
        meta.sim, "GET", f"await?igsid={ADA}&calls=2&seconds=10"
    )
    meta.profile()
    meta.profile()

    assert waiting.result(5) == (200, {"total": 2})
    assert meta.sim("GET", f"await?igsid={BEN}&seconds=0") == (408, {"total": 0})
    assert meta.sim("GET", "await?calls=2&seconds=0") == (200, {"total": 2})


def test_calls_are_listed_without_their_token(meta: Client) -> None:
    """With where it was, and how the call ended."""
    line = meta.open()
    target = f"/{ADA}?fields=name&access_token={DEFAULT_TOKEN}&appsecret_proof=00"
    line.request("GET", target)
    line.getresponse().read()
    line.close()

    calls = meta.sim("GET", "calls")[1]

    assert DEFAULT_TOKEN not in json.dumps(calls)
    assert calls["calls"][0].pop("at") > 0
    assert calls == {
        "total": 1,
        "running": 0,
        "by_person": {ADA: 1},
        "calls": [
            {
                "igsid": ADA,
                "path": f"/{ADA}",
                "fields": ["name"],
                "authorization": "query",
                "proof": True,
                "page": "default",
                "status": 200,
            }
        ],
    }
    assert meta.sim("GET", f"calls?igsid={BEN}") == (200, {"total": 0})


def test_a_token_dies_is_revived_and_changed(meta: Client) -> None:
    """190/463 while it is dead, 190 alone once another is right."""

    def said() -> tuple[Any, Any]:
        error = json.loads(meta.profile()[1]).get("error", {})
        return error.get("code"), error.get("error_subcode")

    orders = [{"alive": False, "subcode": 463}, {"alive": True}, {"value": "NEW"}]
    answers = []
    for order in orders:
        meta.sim("POST", "token", order)
        answers.append(said())

    assert answers == [(190, 463), (None, None), (190, None)]


def test_a_throttle_starts_and_stops(meta: Client) -> None:
    """Code null stops it."""
    meta.sim("POST", "throttle", {"code": 80002, "minutes": 3})
    throttled = meta.profile()

    meta.sim("POST", "throttle", {"code": None})

    assert (throttled[0], meta.profile()[0]) == (400, 200)


def test_usage_can_be_said(meta: Client) -> None:
    """The header repeats it."""
    meta.sim("POST", "usage", {"call_count": 97, "minutes": 2})
    line = meta.open()
    line.request("GET", profile_target(ADA), headers=BEARER)

    header = line.getresponse().headers["x-business-use-case-usage"]

    assert '"call_count":97' in header
    assert '"estimated_time_to_regain_access":2' in header
    line.close()


def test_a_field_can_be_taken_away(meta: Client) -> None:
    """Some accounts are refused a field, and the whole call with it."""
    meta.sim("POST", "fields", {"nonexisting": ["profile_pic"]})

    status, body = meta.profile()

    assert status == 400 and b"nonexisting field (profile_pic)" in body


def test_the_cast_says_what_each_shows(meta: Client) -> None:
    """Ten people, and who is scripted."""
    meta.script(BEN, profile={})

    answer = meta.sim("GET", "people")[1]

    assert len(answer["people"]) == 10 and answer["scripted"] == [BEN]
    assert [p["name"] for p in answer["people"] if p["scripted"]] == ["Ben"]


def test_a_deleted_script_leaves_the_person_as_before(meta: Client) -> None:
    """Ben consents for a while."""
    meta.script(BEN, profile={})
    consenting = meta.profile(BEN)[0]

    meta.sim("DELETE", f"people/{BEN}")

    assert (consenting, meta.profile(BEN)[0]) == (200, 403)


def test_a_reset_starts_over(meta: Client) -> None:
    """Scripts, calls, token and throttle."""
    meta.script(status=502)
    meta.sim("POST", "throttle", {"code": 4})
    meta.profile()

    meta.sim("POST", "reset")

    assert meta.sim("GET", "calls")[1]["total"] == 0
    assert meta.profile()[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", f"people/{ADA}", {"stats": 1}, 400),
        ("PUT", "people/ada", {}, 400),
        ("POST", f"people/{ADA}", {}, 405),
        ("POST", "throttle", {"code": 5}, 400),
        ("POST", "usage", {"calls": 5}, 400),
        ("POST", "token", {"alive": "no"}, 400),
        ("GET", "await?calls=inf", None, 400),
        ("GET", "await?seconds=31", None, 400),
        ("GET", "release", None, 405),
        ("GET", "nothing", None, 404),
    ],
)
def test_a_wrong_order_is_told_what_is_wrong(
    meta: Client, method: str, path: str, body: object, status: int
) -> None:
    """With a text that names it."""
    answer = meta.sim(method, path, body)

    assert answer[0] == status and answer[1]["problem"]


def test_a_body_that_is_too_long_is_not_read(meta: Client) -> None:
    """Its length is enough to refuse it."""
    line = meta.open()
    line.putrequest("PUT", f"/_sim/people/{ADA}")
    line.putheader("Content-Length", str(2 * 1024 * 1024))
    line.endheaders()

    assert line.getresponse().status == 413
    line.close()
