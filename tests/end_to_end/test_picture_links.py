"""Picture links over HTTP, as docs/pictures.md shows them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.helpers.processes import ADA, BEN, FINN, Service, free_port, wait_until
from tests.helpers.redis_servers import require
from tests.helpers.stack import Stack

PAGE = (Path(__file__).parents[2] / "docs" / "pictures.md").read_text()
SECRET = "c0ffee" * 8


@pytest.fixture(scope="module")
def linked(running: Stack, guarded: Any, tmp_path_factory: Any) -> Iterator[Service]:
    """A service with API keys and picture links."""
    file = tmp_path_factory.mktemp("links") / "secret"
    file.write_text(f"{SECRET}\n")
    service = Service(
        **running.settings
        | {"API_KEYS_FILE": str(guarded.file), "PICTURE_LINK_SECRET_FILE": str(file)}
    )
    yield service
    service.stop()


@pytest.fixture
def key(guarded: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {guarded.inbox}"}


def shown(language: str) -> str:
    [block] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(block)


def browse(url: str) -> requests.Response:
    """Ask as a browser does for an ``<img>``: no key, and no redirect yet."""
    return requests.get(url, timeout=10, allow_redirects=False)


class Images(HTMLParser):
    """Collects the ``src`` of each ``<img>``."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.links.append(dict(attrs)["src"] or "")


def test_inbox_of_the_page_shows_pictures_without_a_key(stack, linked, guarded) -> None:
    """The code of the page is run as it stands, but for its addresses and key."""
    namespace: dict[str, Any] = {"__name__": "inbox"}
    exec(shown("python"), namespace)
    namespace |= {"PROXY": linked.url, "PICTURES": linked.url, "KEY": guarded.inbox}

    page = namespace["app"].test_client().get("/inbox").text
    images = Images()
    images.feed(page)
    ada, finn = map(browse, images.links)

    assert guarded.inbox not in page
    assert ada.status_code == 302
    picture = requests.get(ada.headers["Location"], timeout=10)
    assert picture.status_code == 200
    assert (finn.status_code, finn.headers["Content-Type"]) == (200, "image/svg+xml")


def test_answer_of_the_page_has_a_link(stack, linked, key) -> None:
    """The fields that it shows, in their order."""
    fields = {"fields": "profile_pic"}

    body = linked.get(f"/profiles/{ADA}", params=fields, headers=key).json()

    assert list(body) == list(json.loads(shown("json")))
    pattern = rf"profiles/{ADA}/picture\?expires=[0-9]{{10}}&signature=[0-9a-f]{{64}}"
    assert re.fullmatch(pattern, body["picture_link"])


def test_link_opens_one_person_s_picture_only(stack, linked, key) -> None:
    """First by the view, then by the fast path; nothing else without a key."""
    profiles = [linked.get(f"/profiles/{ADA}", headers=key).json() for _ in range(3)]
    link = f"{linked.url}/{profiles[0]['picture_link']}"

    assert profiles[0] == profiles[2]
    assert [browse(link).status_code for _ in range(3)] == [302, 302, 302]
    assert browse(link).headers["Location"] == profiles[0]["profile_pic"]
    for other in (link.replace(ADA, BEN), link[:-1] + "x", f"{link}&signature=0"):
        answer = browse(other)
        assert (answer.status_code, answer.json()["code"]) == (403, "bad_signature")
    for other in (link.replace("/picture", ""), link.partition("?")[0]):
        assert browse(other).json()["code"] == "unknown_key"
    assert "picture_link" not in linked.get(f"/v25.0/{ADA}", headers=key).text
    assert link[-64:] not in linked.log()
    assert SECRET not in linked.log()


def test_gateway_of_the_page_passes_on_pictures_only(
    stack, linked, key, tmp_path
) -> None:
    """nginx with the location of the page, in front of the service."""
    require(shutil.which("nginx") is not None, "nginx")
    port = free_port()
    location = shown("nginx").replace("127.0.0.1:8080", f"127.0.0.1:{linked.port}")
    location = location.replace("/var/log/nginx", str(tmp_path))
    folders = "\n".join(
        f"{name}_temp_path {tmp_path}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; pid {tmp_path}/pid; events {{}}\n"
        f"http {{\n{folders}\naccess_log off;\n"
        "log_format without_query '$request_method $uri $status';\n"
        f"server {{ listen 127.0.0.1:{port};\n{location}\n"
        "location / { return 404; }\n}}\n"
    )
    nginx = subprocess.Popen(
        ["nginx", "-p", tmp_path, "-c", config, "-e", tmp_path / "errors"]
    )
    body = linked.get(f"/profiles/{ADA}", headers=key).json()
    outside = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            return browse(outside).status_code == 404
        except requests.ConnectionError:
            return False

    try:
        wait_until(is_up, 10, "nginx answers")
        assert browse(f"{outside}/{body['picture_link']}").status_code == 302
        shop = browse(f"{outside}/pages/default/{body['picture_link']}")
        assert shop.status_code == 302
        profile = requests.get(f"{outside}/profiles/{ADA}", headers=key, timeout=10)
        assert "bad" not in profile.text and profile.status_code == 404
        logged = (tmp_path / "pictures.log").read_text()
        assert f"/profiles/{ADA}/picture 302" in logged
        assert "signature" not in logged
    finally:
        nginx.terminate()
        nginx.wait(10)


def test_finn_has_a_link_too(stack, linked, key) -> None:
    """Though he has no picture: it draws initials, and is a 404 otherwise."""
    link = linked.get(f"/profiles/{FINN}", headers=key).json()["picture_link"]

    assert browse(f"{linked.url}/{link}").json()["code"] == "no_picture"
    assert browse(f"{linked.url}/{link}&fallback=initials").status_code == 200
