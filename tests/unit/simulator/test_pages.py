"""Several Pages of the simulated Meta: their tokens, their people, their rules."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.simulator.__main__ import main
from proxy.simulator.server import DEFAULT_TOKEN, Simulator
from tests.helpers.simulator_client import ADA, Client

SHOP_TOKEN, SHOP_SECRET = "EAASHOP", "shopsecret"
LOGIN_TOKEN = "IGAALOGIN"
SHOP_ADA, LOGIN_ADA = "1254101000000001", "1254201000000001"
LOGIN_CLEO = "1254201000000003"


@pytest.fixture
def meta() -> Iterator[Client]:
    """Two more Pages: one of an app with a secret, one of an Instagram login."""
    pages = {"shop": (SHOP_TOKEN, SHOP_SECRET), "login": (LOGIN_TOKEN, None)}
    with Simulator(pages=pages) as simulator:
        yield Client(simulator.url)


def ask(meta: Client, igsid: str, token: str, query: str = "") -> Any:
    """Return status, body and headers of one call."""
    connection = meta.open()
    try:
        target = f"/v25.0/{igsid}?fields=name{query}"
        connection.request("GET", target, headers={"Authorization": f"Bearer {token}"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read()), dict(reply.getheaders())
    finally:
        connection.close()


def proof(token: str = SHOP_TOKEN) -> str:
    digest = hmac.new(SHOP_SECRET.encode(), token.encode(), hashlib.sha256)
    return f"&appsecret_proof={digest.hexdigest()}"


def test_each_page_has_its_own_ids_for_the_same_people(meta: Client) -> None:
    """With another Page's id the answer is 100/33, as for an unknown person."""
    own_ids = [
        ask(meta, ADA, DEFAULT_TOKEN),
        ask(meta, SHOP_ADA, SHOP_TOKEN, proof()),
        ask(meta, LOGIN_ADA, LOGIN_TOKEN),
    ]
    others = [
        ask(meta, SHOP_ADA, DEFAULT_TOKEN),
        ask(meta, ADA, SHOP_TOKEN, proof()),
        ask(meta, SHOP_ADA, LOGIN_TOKEN),
    ]

    assert [said["name"] for _, said, _ in own_ids] == ["Ada Lovelace"] * 3
    assert [said["id"] for _, said, _ in own_ids] == [ADA, SHOP_ADA, LOGIN_ADA]
    for status, said, _ in others:
        error = said["error"]
        assert (status, error["code"], error["error_subcode"]) == (400, 100, 33)


def test_script_applies_to_the_page_of_the_person(meta: Client) -> None:
    """It has no effect on calls of other Pages about that id."""
    meta.script(SHOP_ADA, profile={"name": "Bea"})

    assert ask(meta, SHOP_ADA, SHOP_TOKEN, proof())[1]["name"] == "Bea"
    assert ask(meta, SHOP_ADA, DEFAULT_TOKEN)[0] == 400


def test_secret_applies_to_its_own_page(meta: Client) -> None:
    """One Page's app demands a proof, and the others do not."""
    status, said, _ = ask(meta, SHOP_ADA, SHOP_TOKEN)

    assert (status, said["error"]["code"]) == (400, 100)
    assert ask(meta, ADA, DEFAULT_TOKEN)[0] == 200


def test_fault_of_a_page_affects_no_other(meta: Client) -> None:
    """A throttle, a dead token and a quota each name their Page."""
    meta.sim("POST", "throttle", {"code": 32, "page": "shop"})
    meta.sim("POST", "token", {"alive": False, "page": "login"})
    meta.sim("POST", "usage", {"call_count": 80, "page": "shop"})

    shop = ask(meta, SHOP_ADA, SHOP_TOKEN, proof())
    login = ask(meta, LOGIN_ADA, LOGIN_TOKEN)
    default = ask(meta, ADA, DEFAULT_TOKEN)

    assert shop[1]["error"]["code"] == 32
    assert login[1]["error"]["code"] == 190
    assert default[0] == 200
    assert '"call_count":0' in default[2]["x-business-use-case-usage"]
    status, body = meta.sim("POST", "throttle", {"code": 32, "page": "shopp"})
    assert (status, "default, shop, login" in body["problem"]) == (400, True)


def test_rotated_token_applies_to_its_own_page(meta: Client) -> None:
    """The old one is no Page's then."""
    meta.sim("POST", "token", {"value": "EAANEW", "page": "shop"})

    assert ask(meta, SHOP_ADA, "EAANEW", proof("EAANEW"))[0] == 200
    assert ask(meta, SHOP_ADA, SHOP_TOKEN, proof())[1]["error"]["code"] == 190
    assert ask(meta, ADA, DEFAULT_TOKEN)[0] == 200
    pages = [call["page"] for call in meta.sim("GET", "calls")[1]["calls"]]
    assert pages == ["shop", None, "default"]


def test_instagram_login_gets_its_own_form_of_answers(meta: Client) -> None:
    """Another type, no code in the message, other names in the usage header."""
    meta.sim("POST", "usage", {"call_count": 28, "page": "login"})

    _, gone, headers = ask(meta, LOGIN_CLEO, LOGIN_TOKEN)
    _, stranger, _ = ask(meta, LOGIN_ADA, "IGAASTRANGER")

    assert gone["error"]["type"] == "IGApiException"
    assert gone["error"]["message"] == "No matching Instagram user"
    assert gone["error"]["code"] == 9010
    assert json.loads(headers["x-app-usage"]) == {"call_volume": 28, "cpu_time": 7}
    assert "x-business-use-case-usage" not in headers
    assert stranger["error"]["message"].endswith("Cannot parse access token")


def test_people_of_each_page_are_listed(meta: Client) -> None:
    """The ids of each person, by Page."""
    people = meta.sim("GET", "people")[1]["people"]

    adas = {each["page"]: each["igsid"] for each in people if each["name"] == "Ada"}
    assert adas == {"default": ADA, "shop": SHOP_ADA, "login": LOGIN_ADA}


@pytest.mark.parametrize(
    "words",
    [
        ["--page", "shop"],
        ["--page", "=EAA"],
        ["--page", "default=EAA"],
        ["--page", "a=EAA", "--page", "a=EAB"],
        [word for n in range(10) for word in ("--page", f"p{n}=EAA{n}")],
    ],
)
def test_invalid_page_option_stops_the_start(words: list[str]) -> None:
    """Ids have one digit for the Page."""
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
