"""Clients made for Meta, before and after: other base URL, other token, same answers.

Both are used as they come from PyPI, and told where Meta is in their own ways.
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


class At(requests.Session):
    """A session for which Meta is elsewhere: facebook-sdk takes one, and no URL."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.trust_env = False
        self._url = url

    def request(self, method, url, *args, **kwargs):
        url = url.replace(META, f"{self._url}/")
        return super().request(method, url, *args, **kwargs)


def facebook_sdk(url: str, token: str, igsid: str, fields: str) -> Any:
    """What facebook-sdk makes of the answer, or the error that it raises."""
    api = facebook.GraphAPI(token, version="3.1", timeout=10, session=At(url))
    key, proven = APP_SECRET.encode(), token.encode()
    proof = hmac.new(key, proven, hashlib.sha256).hexdigest()
    try:
        return api.get_object(igsid, fields=fields, appsecret_proof=proof)
    except facebook.GraphAPIError as exc:
        return exc.result


def python_facebook_api(url: str, token: str, igsid: str, fields: str) -> Any:
    """The same, of python-facebook-api, which makes the proof by itself."""
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


def told(answer: Any) -> Any:
    """*answer* without what Meta makes anew each time: a signature, a trace id."""
    error = answer.get("error")
    if error:
        return {key: error[key] for key in error if key != "fbtrace_id"}
    return answer | {"profile_pic": str(answer["profile_pic"]).partition("?")[0]}


@pytest.mark.parametrize("ask", CLIENTS)
@pytest.mark.parametrize("igsid", [ADA, EVE, FINN, BEN, CLEO, DOV, JO, "12345"])
def test_a_client_reads_of_each_person_what_meta_told_it(
    stack, guarded, ask, igsid
) -> None:
    """A profile with its nulls and gaps, or a refusal with code, type and words."""
    before = ask(stack.meta.url, PAGE_TOKEN, igsid, FIELDS)
    after = ask(guarded.service.url, guarded.inbox, igsid, FIELDS)
    again = ask(guarded.service.url, guarded.inbox, igsid, FIELDS)

    assert told(after) == told(before)
    assert after == again


@pytest.mark.parametrize("ask", CLIENTS)
def test_a_client_is_told_190_of_its_own_key_only(stack, guarded, ask) -> None:
    """Our dead token is a moment's trouble to it, and no reason to log in again."""
    stack.meta.order("token", alive=False)

    of_ours = ask(guarded.service.url, guarded.inbox, ADA, FIELDS)
    of_its_own = ask(guarded.service.url, "pp_unknown", ADA, FIELDS)

    assert (of_ours["error"]["code"], of_its_own["error"]["code"]) == (2, 190)
    assert of_ours["error"]["is_transient"] is True


@pytest.mark.parametrize("ask", CLIENTS)
def test_a_client_that_asks_in_vain_can_read_why(stack, guarded, ask) -> None:
    """Code 100 on both sides: a field that Meta does not know."""
    before = ask(stack.meta.url, PAGE_TOKEN, ADA, "name,birthday")
    after = ask(guarded.service.url, guarded.inbox, ADA, "name,birthday")

    assert after["error"]["code"] == before["error"]["code"] == 100
    assert "birthday" in after["error"]["message"]


def test_many_at_once_are_refused_in_the_envelope(stack, guarded) -> None:
    """As Meta refuses ``ids`` by now, though with another status."""
    api = facebook.GraphAPI(guarded.inbox, session=At(guarded.service.url))

    with pytest.raises(facebook.GraphAPIError) as raised:
        api.get_objects([ADA, BEN])

    assert raised.value.code == 100
    assert stack.meta.calls() == 0
