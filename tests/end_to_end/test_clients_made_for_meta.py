"""Clients made for Meta get the same answers from us, by another URL and token.

Both are unchanged packages of PyPI, each configured in its own way.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import facebook
import pyfacebook
import pytest
import requests

from tests.helpers.processes import (
    ADA,
    APP_SECRET,
    BEN,
    CLEO,
    DOV,
    EVE,
    FINN,
    JO,
    PAGE_TOKEN,
)

FIELDS = (
    "name,username,profile_pic,is_verified_user,follower_count,"
    "is_user_follow_business,is_business_follow_user"
)
META = "https://graph.facebook.com/"


class RedirectedSession(requests.Session):
    """A session that replaces Meta's URL: facebook-sdk takes a session, but no URL."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.trust_env = False
        self._url = url

    def request(self, method, url, *args, **kwargs):
        url = url.replace(META, f"{self._url}/")
        return super().request(method, url, *args, **kwargs)


def proof_of(token: str) -> str:
    """Return the ``appsecret_proof`` of *token*."""
    return hmac.new(APP_SECRET.encode(), token.encode(), hashlib.sha256).hexdigest()


def facebook_sdk(url: str, token: str, igsid: str, fields: str) -> Any:
    """Return facebook-sdk's result, or the body of the error that it raises."""
    session = RedirectedSession(url)
    api = facebook.GraphAPI(token, version="3.1", timeout=10, session=session)
    try:
        return api.get_object(igsid, fields=fields, appsecret_proof=proof_of(token))
    except facebook.GraphAPIError as exc:
        return exc.result


def python_facebook_api(url: str, token: str, igsid: str, fields: str) -> Any:
    """Return python-facebook-api's result or error. It makes the proof by itself."""
    api = pyfacebook.GraphAPI(
        access_token=token,
        app_secret=APP_SECRET,
        base_url=f"{url}/",
        version="v25.0",
    )
    try:
        return api.get_object(igsid, fields=fields)
    except pyfacebook.FacebookError as exc:
        return exc._data


CLIENTS = [facebook_sdk, python_facebook_api]


def comparable(answer: Any) -> Any:
    """Return *answer* without the parts that change: a signature, a trace id."""
    error = answer.get("error")
    if error:
        return {key: error[key] for key in error if key != "fbtrace_id"}
    return answer | {"profile_pic": str(answer["profile_pic"]).partition("?")[0]}


@pytest.mark.parametrize("ask", CLIENTS)
@pytest.mark.parametrize("igsid", [ADA, EVE, FINN, BEN, CLEO, DOV, JO, "12345"])
def test_client_gets_the_answer_that_meta_would_give(
    stack, guarded, ask, igsid
) -> None:
    """A profile with its nulls and gaps, or a refusal with code, type and message."""
    before = ask(stack.meta.url, PAGE_TOKEN, igsid, FIELDS)
    after = ask(guarded.service.url, guarded.inbox, igsid, FIELDS)
    again = ask(guarded.service.url, guarded.inbox, igsid, FIELDS)

    assert comparable(after) == comparable(before)
    assert after == again


@pytest.mark.parametrize("ask", CLIENTS)
def test_client_gets_190_only_for_its_own_key(stack, guarded, ask) -> None:
    """A dead token of ours is a transient error to it, not a reason to log in."""
    stack.meta.order("token", alive=False)

    dead_token = ask(guarded.service.url, guarded.inbox, ADA, FIELDS)
    bad_key = ask(guarded.service.url, "pp_unknown", ADA, FIELDS)

    assert (dead_token["error"]["code"], bad_key["error"]["code"]) == (2, 190)
    assert dead_token["error"]["is_transient"] is True


@pytest.mark.parametrize("ask", CLIENTS)
def test_client_gets_code_100_for_an_unknown_field(stack, guarded, ask) -> None:
    """As from Meta, and the message names the field."""
    before = ask(stack.meta.url, PAGE_TOKEN, ADA, "name,birthday")
    after = ask(guarded.service.url, guarded.inbox, ADA, "name,birthday")

    assert after["error"]["code"] == before["error"]["code"] == 100
    assert "birthday" in after["error"]["message"]


def test_client_gets_code_100_for_a_batch_of_ids(stack, guarded) -> None:
    """Meta refuses ``ids`` too by now, though with another status."""
    session = RedirectedSession(guarded.service.url)
    api = facebook.GraphAPI(guarded.inbox, session=session)

    with pytest.raises(facebook.GraphAPIError) as raised:
        api.get_objects([ADA, BEN])

    assert raised.value.code == 100
    assert stack.meta.calls() == 0


@pytest.mark.parametrize(
    "path",
    [
        *(f"/{version}{ADA}{end}" for version in ("", "v25.0/") for end in ("", "/")),
        f"/{ADA}?fields=",
        f"/{ADA}?fields=username,%20name,",
        f"/{BEN}",
        f"/v25.0/{CLEO}/",
    ],
)
def test_door_answers_as_meta_without_version_or_fields(stack, guarded, path) -> None:
    """With the scheme that older clients send: the base URL and the token change."""
    token, key = f"Bearer {PAGE_TOKEN}", f"OAuth {guarded.inbox}"
    before = requests.get(
        stack.meta.url + path,
        params={"appsecret_proof": proof_of(PAGE_TOKEN)},
        headers={"Authorization": token},
        timeout=10,
    )
    after = guarded.service.get(path, headers={"Authorization": key})

    assert after.status_code == before.status_code
    bodies = [answer.json() for answer in (before, after)]
    for body in bodies:
        body.get("error", {}).pop("fbtrace_id", None)
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("prefix", ["", "/pages/default"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/{ADA}/conversations"),
        ("GET", f"/v25.0/{ADA}/conversations?fields=id"),
        ("GET", f"/v25.0/?ids={ADA},{BEN}"),
        ("GET", "/v25.0/me"),
        ("GET", "/123"),
        ("POST", f"/{ADA}"),
        ("POST", "/v25.0/"),
        ("DELETE", f"/v25/{ADA}"),
        ("OPTIONS", f"/{ADA}"),
        ("GET", f"/{ADA}?access_token=pp_unknown"),
        ("GET", f"/{ADA}?fields=bio"),
    ],
)
def test_door_never_answers_with_a_body_that_looks_like_a_profile(
    guarded, method, path, prefix
) -> None:
    """facepy and others raise for ``error`` alone, whatever the status is."""
    answer = guarded.service.request(
        method,
        prefix + path,
        data={"batch": "[]"} if method == "POST" else None,
        headers={"Authorization": f"Bearer {guarded.inbox}"},
    )

    assert answer.status_code in (400, 401, 404)
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"]["code"] in (100, 190)
