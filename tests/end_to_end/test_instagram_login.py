"""A Page of an Instagram login, by itself: other words and headers, same outcomes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.processes import Service, SimulatedMeta
from tests.helpers.stack import Stack

API = Path(__file__).parents[2] / "docs" / "api.md"
LOGIN_TOKEN = "IGAACANARYLOGINTOKEN0123456789"
SECRET = "canaryloginsecret0123456789abcde"


def her(number: int) -> str:
    """One of the cast, by the id that this Page knows."""
    return f"12541010000000{number:02}"


@pytest.fixture(scope="module")
def login(
    running: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """A service that has no other Page, not even a default one."""
    file = tmp_path_factory.mktemp("pages") / "pages.toml"
    meta = SimulatedMeta(f"--page=shop={LOGIN_TOKEN}:{SECRET}")
    file.write_text(
        f'[pages.shop]\ntoken = "{LOGIN_TOKEN}"\napp_secret = "{SECRET}"\n'
        f'url = "{meta.url}"\n'
    )
    service = Service(
        PAGES_FILE=str(file),
        GRAPH_URL="http://127.0.0.1:1",  # Nobody's, as there is no default Page.
        STORE_URL=running.store.url,
        KEY_PREFIX="login",
        WORKERS="1",
    )
    yield SimpleNamespace(meta=meta, service=service)
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
def test_everybody_is_told_of_as_at_any_page(login, number: int, code: str) -> None:
    """By code and subcode: the type is another, and no message begins with its code."""
    answer = login.service.get(f"/pages/shop/profiles/{her(number)}")
    again = login.service.get(f"/pages/shop/profiles/{her(number)}")

    assert answer.json().get("code") == again.json().get("code") == code
    assert again.headers["Cache-Status"].startswith("profile-proxy; hit")
    assert login.meta.calls(her(number)) == 1
    assert {call["page"] for call in login.meta.overview()["calls"]} == {"shop"}


def test_the_example_of_the_documentation(login) -> None:
    """The request that stands there, and the answer below it."""
    shown = API.read_text().partition("### Several Pages\n")[2]
    path = re.search(r"^GET (/pages/\S+)$", shown, re.M)[1]
    example = json.loads(re.search(r"```json\n(.*?)```", shown, re.DOTALL)[1])

    body = login.service.get(path).json()

    assert list(body) == list(example)
    assert (body["id"], body["name"]) == (example["id"], example["name"])


def test_the_quota_is_read_by_its_names(login) -> None:
    """``call_volume`` and ``cpu_time`` in ``x-app-usage``."""
    login.meta.order("usage", page="shop", call_count=64)
    login.service.get(f"/pages/shop/profiles/{her(5)}")

    stats = login.service.get("/pages/shop/admin/stats").json()

    assert stats["usage_percent"] == 64
    login.meta.order("usage", page="shop")


def test_without_a_default_page_whoever_names_none_is_told_so(login) -> None:
    """The service is well all the same."""
    answer = login.service.get(f"/profiles/{her(1)}")

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_page")
    assert login.service.get("/readyz").json() == {"status": "ok", "reasons": []}
    assert 'page="shop"' in login.service.get("/metrics").text
