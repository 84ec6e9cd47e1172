"""The simulator over HTTP, and its control routes."""

import json
import shlex
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from proxy.simulator.server import DEFAULT_TOKEN, Simulator
from tests.helpers.simulator_client import ADA, BEARER, BEN, Client, profile_target


def test_connection_serves_many_calls(meta: Client) -> None:
    """Keep-alive holds for control calls, errors and pictures too."""
    connection = meta.open()
    connection.connect()
    first = connection.sock
    statuses = []
    for target in (profile_target(ADA), profile_target(BEN), "/_sim/health"):
        connection.request("GET", target, headers=BEARER)
        reply = connection.getresponse()
        reply.read()
        statuses.append(reply.status)

    assert statuses == [200, 403, 200] and connection.sock is first
    connection.close()


def test_picture_url_points_to_the_simulator(meta: Client) -> None:
    """The link in a profile can be followed."""
    url = urlsplit(json.loads(meta.profile()[1])["profile_pic"])

    connection = meta.open()
    connection.request("GET", f"{url.path}?{url.query}")
    reply = connection.getresponse()

    assert (url.port, reply.status) == (meta.port, 200)
    assert reply.headers["content-type"] == "image/svg+xml" and reply.read()
    connection.close()


def test_await_ends_when_the_call_arrives(
    meta: Client, pool: ThreadPoolExecutor
) -> None:
    """And with 408 if it does not."""
    waiting: Future[tuple[int, Any]] = pool.submit(
        meta.sim, "GET", f"await?igsid={ADA}&calls=2&seconds=10"
    )
    meta.profile()
    meta.profile()

    assert waiting.result(5) == (200, {"total": 2})
    assert meta.sim("GET", f"await?igsid={BEN}&seconds=0") == (408, {"total": 0})
    assert meta.sim("GET", "await?calls=2&seconds=0") == (200, {"total": 2})


def test_calls_are_listed_without_their_token(meta: Client) -> None:
    """With the place of the token, and how the call ended."""
    connection = meta.open()
    target = f"/{ADA}?fields=name&access_token={DEFAULT_TOKEN}&appsecret_proof=00"
    connection.request("GET", target)
    connection.getresponse().read()
    connection.close()

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


def test_token_can_die_be_revived_and_changed(meta: Client) -> None:
    """190/463 while it is dead, 190 alone once another is valid."""

    def error_codes() -> tuple[Any, Any]:
        error = json.loads(meta.profile()[1]).get("error", {})
        return error.get("code"), error.get("error_subcode")

    orders = [{"alive": False, "subcode": 463}, {"alive": True}, {"value": "NEW"}]
    answers = []
    for order in orders:
        meta.sim("POST", "token", order)
        answers.append(error_codes())

    assert answers == [(190, 463), (None, None), (190, None)]


def test_throttle_starts_and_stops(meta: Client) -> None:
    """Code null stops it."""
    meta.sim("POST", "throttle", {"code": 80002, "minutes": 3})
    throttled = meta.profile()

    meta.sim("POST", "throttle", {"code": None})

    assert (throttled[0], meta.profile()[0]) == (400, 200)


def test_usage_can_be_set(meta: Client) -> None:
    """The header repeats it."""
    meta.sim("POST", "usage", {"call_count": 97, "minutes": 2})
    connection = meta.open()
    connection.request("GET", profile_target(ADA), headers=BEARER)

    header = connection.getresponse().headers["x-business-use-case-usage"]

    assert '"call_count":97' in header
    assert '"estimated_time_to_regain_access":2' in header
    connection.close()


def test_field_can_be_removed(meta: Client) -> None:
    """Meta refuses a field to some accounts, and the whole call with it."""
    meta.sim("POST", "fields", {"nonexisting": ["profile_pic"]})

    status, body = meta.profile()

    assert status == 400 and b"nonexisting field (profile_pic)" in body


def test_people_are_listed_with_their_peculiarity(meta: Client) -> None:
    """Thirteen people, and those with a script."""
    meta.script(BEN, profile={})

    answer = meta.sim("GET", "people")[1]

    assert len(answer["people"]) == 13 and answer["scripted"] == [BEN]
    assert [p["name"] for p in answer["people"] if p["scripted"]] == ["Ben"]


def test_deleted_script_leaves_the_person_as_before(meta: Client) -> None:
    """Ben consents for a while."""
    meta.script(BEN, profile={})
    consenting = meta.profile(BEN)[0]

    meta.sim("DELETE", f"people/{BEN}")

    assert (consenting, meta.profile(BEN)[0]) == (200, 403)


def test_reset_starts_over(meta: Client) -> None:
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
def test_invalid_control_call_gets_a_problem(
    meta: Client, method: str, path: str, body: object, status: int
) -> None:
    """The text names the mistake."""
    answer = meta.sim(method, path, body)

    assert answer[0] == status and answer[1]["problem"]


def test_body_over_1_mib_is_refused_unread(meta: Client) -> None:
    """Its length is enough to refuse it."""
    connection = meta.open()
    connection.putrequest("PUT", f"/_sim/people/{ADA}")
    connection.putheader("Content-Length", str(2 * 1024 * 1024))
    connection.endheaders()

    assert connection.getresponse().status == 413
    connection.close()


def test_simulator_lists_its_controls_with_examples(meta: Client) -> None:
    """Each of them exists, and takes its example."""
    status, listed = meta.sim("GET", "")

    assert status == 200
    taken = [
        (meta.sim(each["method"], *request_of(each["example"])), each)
        for each in listed["controls"]
        if each["path"] not in ("/_sim/await", "/_sim/people/<igsid>/writes")
    ]
    assert [each for (status, _), each in taken if status != 200] == []
    assert all(f":{meta.port}/_sim/" in each["example"] for each in listed["controls"])


def request_of(example: str) -> tuple[Any, ...]:
    """Return the path below ``/_sim/`` and the body of a curl command."""
    words = shlex.split(example)
    path = words[-1].partition("/_sim/")[2]
    return (path, json.loads(words[words.index("-d") + 1]) if "-d" in words else None)


def test_list_of_controls_has_every_control(meta: Client) -> None:
    """A new one needs a row."""
    with Simulator() as simulator:
        known = {*simulator.control._queries, *simulator.control._commands}
    _, listed = meta.sim("GET", "")
    paths = {each["path"] for each in listed["controls"]}

    assert {path for path in paths if "<igsid>" not in path} == known
