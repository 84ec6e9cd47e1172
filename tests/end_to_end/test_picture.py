"""Pictures over HTTP, as in docs/api.md: a redirect, or initials."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import requests

from tests.helpers.processes import ADA, CLEO, EVE, FINN
from tests.helpers.stack import Stack

API = Path(__file__).parents[2] / "docs" / "api.md"


def picture(stack: Stack, igsid: str) -> requests.Response:
    """Return the service's own answer, without following the redirect."""
    path = f"/profiles/{igsid}/picture"
    answer: requests.Response = stack.service.get(path, allow_redirects=False)
    return answer


def test_picture_route_redirects_to_the_profile_s_picture(stack) -> None:
    """The picture exists, and the second redirect is a hit."""
    answers = [picture(stack, ADA) for _ in range(2)]
    links = {answer.headers["Location"] for answer in answers}
    profile = stack.service.get(f"/profiles/{ADA}").json()

    assert [answer.status_code for answer in answers] == [302, 302]
    assert links == {profile["profile_pic"]}
    assert requests.get(links.pop(), timeout=5).status_code == 200
    assert stack.meta.calls(ADA) == 1


def test_documented_picture_request_draws_initials(stack) -> None:
    """Ben has not consented, so it draws a question mark."""
    path = re.search(r"^GET (\S+fallback=initials)$", API.read_text(), re.M)[1]

    answer = stack.service.get(path)

    assert (answer.status_code, answer.headers["Content-Type"]) == (
        200,
        "image/svg+xml",
    )
    text = ElementTree.fromstring(answer.content)[-1].text
    assert text == "?"


def test_person_without_a_picture_gets_initials_on_request(stack) -> None:
    """Finn has neither a picture nor a name; Cleo is not found."""
    plain = picture(stack, FINN)
    drawn = stack.service.get(f"/profiles/{FINN}/picture?fallback=initials")
    gone = stack.service.get(f"/profiles/{CLEO}/picture?fallback=initials")

    assert (plain.status_code, plain.json()["code"]) == (404, "no_picture")
    assert (drawn.status_code, gone.status_code) == (200, 200)
    assert drawn.headers["Cache-Status"].startswith("profile-proxy; hit; ttl=")
    assert picture(stack, EVE).status_code == 302
