"""A Page of an Instagram login: other messages and headers, same outcomes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.processes import Service, SimulatedMeta
from tests.helpers.stack import Stack

API = Path(__file__).parents[2] / "docs" / "api.md"
LOGIN_TOKEN = "IGAACANARYLOGINTOKEN0123456789"
SECRET = "canaryloginsecret0123456789abcde"


def her(number: int) -> str:
    """Return a simulated person's id at this Page."""
    return f"12541010000000{number:02}"


class LoginService(NamedTuple):
    meta: SimulatedMeta
    service: Service


@pytest.fixture(scope="module")
def login(
    running: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoginService]:
    """A service with this Page alone: it has no default Page."""
    file = tmp_path_factory.mktemp("pages") / "pages.toml"
    meta = SimulatedMeta(f"--page=shop={LOGIN_TOKEN}:{SECRET}")
    file.write_text(
        f'[pages.shop]\ntoken = "{LOGIN_TOKEN}"\napp_secret = "{SECRET}"\n'
        f'url = "{meta.url}"\n'
    )
    service = Service(
        PAGES_FILE=str(file),
        GRAPH_URL="http://127.0.0.1:1",  # Unused, as there is no default Page.
        STORE_URL=running.settings["STORE_URL"],
        KEY_PREFIX="login",
        WORKERS="1",
    )
    yield LoginService(meta=meta, service=service)
    service.stop()
    meta.close()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (1, None),
        (2, "consent_required"),
        (3, "not_found"),
        (4, "blocked"),
        (6, None),
        (10, "unavailable"),
    ],
)
def test_login_page_has_the_same_outcomes_as_any_page(
    login, number: int, code: str
) -> None:
    """Codes and subcodes agree; types differ, and messages do not name the code."""
    answer = login.service.get(f"/pages/shop/profiles/{her(number)}")
    again = login.service.get(f"/pages/shop/profiles/{her(number)}")

    assert answer.json().get("code") == again.json().get("code") == code
    assert again.headers["Cache-Status"].startswith("profile-proxy; hit")
    assert login.meta.calls(her(number)) == 1
    assert {call["page"] for call in login.meta.overview()["calls"]} == {"shop"}


def test_documented_example_equals_the_answer(login) -> None:
    """The request in docs/api.md gets the answer below it."""
    shown = API.read_text().partition("### Several Pages\n")[2]
    path = re.search(r"^GET (/pages/\S+)$", shown, re.M)[1]
    example = json.loads(re.search(r"```json\n(.*?)```", shown, re.DOTALL)[1])

    body = login.service.get(path).json()

    assert list(body) == list(example)
    assert (body["id"], body["name"]) == (example["id"], example["name"])


def test_quota_is_read_by_the_login_api_s_names(login) -> None:
    """These are ``call_volume`` and ``cpu_time`` in ``x-app-usage``."""
    login.meta.order("usage", page="shop", call_count=64)
    login.service.get(f"/pages/shop/profiles/{her(5)}")

    stats = login.service.get("/pages/shop/admin/stats").json()

    assert stats["usage_percent"] == 64
    login.meta.order("usage", page="shop")


def test_path_without_a_page_is_404_if_there_is_no_default_page(login) -> None:
    """The service is ready all the same."""
    answer = login.service.get(f"/profiles/{her(1)}")

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_page")
    assert login.service.get("/readyz").json() == {"status": "ok", "reasons": []}
    assert 'page="shop"' in login.service.get("/metrics").text
