"""Pictures over HTTP, as docs/api.md shows them: a redirect, or initials."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import requests

from tests.helpers.processes import ADA, CLEO, EVE, FINN
from tests.helpers.stack import Stack

API = Path(__file__).parents[2] / "docs" / "api.md"


def picture(stack: Stack, igsid: str) -> requests.Response:
    """What the service says, without going where it leads."""
    path = f"/profiles/{igsid}/picture"
    answer: requests.Response = stack.service.get(path, allow_redirects=False)
    return answer


def test_the_picture_is_where_the_redirect_leads(stack) -> None:
    """And is alive; the second redirect is a hit."""
    answers = [picture(stack, ADA) for _ in range(2)]
    links = {answer.headers["Location"] for answer in answers}
    profile = stack.service.get(f"/profiles/{ADA}").json()

    assert [answer.status_code for answer in answers] == [302, 302]
    assert links == {profile["profile_pic"]}
    assert requests.get(links.pop(), timeout=5).status_code == 200
    assert stack.meta.calls(ADA) == 1


def test_the_request_of_the_documentation(stack) -> None:
    """Ben has not consented, and gets a question mark."""
    path = re.search(r"^GET (\S+fallback=initials)$", API.read_text(), re.M)[1]

    answer = stack.service.get(path)

    assert (answer.status_code, answer.headers["Content-Type"]) == (
        200,
        "image/svg+xml",
    )
    text = ElementTree.fromstring(answer.content)[-1].text
    assert text == "?"


def test_who_has_no_picture_has_initials(stack) -> None:
    """Finn has neither a picture nor a name; Cleo is gone."""
    plain = picture(stack, FINN)
    drawn = stack.service.get(f"/profiles/{FINN}/picture?fallback=initials")
    gone = stack.service.get(f"/profiles/{CLEO}/picture?fallback=initials")

    assert (plain.status_code, plain.json()["code"]) == (404, "no_picture")
    assert (drawn.status_code, gone.status_code) == (200, 200)
    assert drawn.headers["Cache-Status"].startswith("profile-proxy; hit; ttl=")
    assert picture(stack, EVE).status_code == 302
