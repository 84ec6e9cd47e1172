"""Replies of Meta with a value of another type or shape in some of their fields."""

from __future__ import annotations

import json

import pytest

from proxy.domain.profile import FIELDS
from tests.helpers.processes import MIA, Service, crowd
from tests.helpers.prometheus import total
from tests.helpers.stack import Stack

WHO = crowd(9)
WHOLE = {
    "id": WHO,
    "name": "Vera Novak",
    "username": "vera",
    "profile_pic": None,
    "is_verified_user": False,
    "follower_count": 12,
    "is_user_follow_business": True,
    "is_business_follow_user": False,
}


def counted(service: Service) -> dict[str, float]:
    """Return the counts of odd fields, by field."""
    text = service.get("/metrics").text
    counts = {
        name: total(text, "graph_odd_fields_total", field=name) for name in FIELDS
    }
    return {name: count for name, count in counts.items() if count is not None}


def logged(service: Service, igsid: str) -> list[dict]:
    """Return the lines about calls to Meta whose reply about *igsid* was odd."""
    lines = [json.loads(x) for x in service.log().splitlines() if x.startswith("{")]
    return [
        line
        for line in lines
        if line.get("odd_fields") and line["person"].endswith(igsid[-4:])
    ]


def test_series_of_odd_fields_exist_from_the_start(stack) -> None:
    """One for each field."""
    assert set(counted(stack.service)) == set(FIELDS)


def test_odd_fields_are_null_counted_and_logged(stack: Stack) -> None:
    """The rest of the profile is served, and stored like one without a picture."""
    before, lines = counted(stack.service), len(logged(stack.service, MIA))
    odd = {"follower_count", "is_verified_user", "profile_pic"}

    answer = stack.service.get(f"/profiles/{MIA}")
    picture = stack.service.get(f"/profiles/{MIA}/picture")
    again = stack.service.get(f"/profiles/{MIA}")

    body = answer.json()
    assert (answer.status_code, body["name"]) == (200, "Mia Farrow")
    assert {name for name, value in body.items() if value is None} == {
        *odd,
        "picture_expires_at",
    }
    assert (picture.status_code, picture.json()["code"]) == (404, "no_picture")
    assert again.headers["Cache-Status"].startswith("profile-proxy; hit; ")
    assert again.json() == body
    assert stack.meta.calls(MIA) == 1
    after = counted(stack.service)
    assert {name: after[name] - before[name] for name in FIELDS} == {
        name: float(name in odd) for name in FIELDS
    }
    (line,) = logged(stack.service, MIA)[lines:]
    assert (line["message"], set(line["odd_fields"])) == ("asked Meta", odd)
    assert "no link" not in stack.service.log()


ODD = {
    "a name as a number": ("name", "7"),
    "a count as text": ("follower_count", '"7"'),
    "a count below zero": ("follower_count", "-1"),
    "a count of 5000 digits": ("follower_count", "9" * 5000),
    "a flag as a number": ("is_verified_user", "1"),
    "a picture as a list": ("profile_pic", "[]"),
    "a picture of another kind": ("profile_pic", '"javascript:alert(1)"'),
    "a picture with a line break": ("profile_pic", r'"https://host/a\r\nX: y"'),
}
"""Fields and their values in JSON."""


@pytest.mark.parametrize("name", ODD)
def test_odd_field_costs_only_itself(stack: Stack, name: str) -> None:
    """Forced five times, it closes no gate."""
    field, value = ODD[name]
    others = {key: value for key, value in WHOLE.items() if key != field}
    stack.meta.person(WHO, raw=f'{json.dumps(others)[:-1]}, "{field}": {value}}}')

    for _ in range(5):
        stack.service.request("POST", f"/admin/profiles/{WHO}/refresh")
        answer = stack.service.get(f"/profiles/{WHO}")

        assert answer.status_code == 200
        shown = {key: answer.json()[key] for key in WHOLE}
        assert shown == WHOLE | {field: None}
    metrics = stack.service.get("/metrics").text
    assert total(metrics, "gate_closed_for_seconds", cause="unavailable") == 0
    assert stack.service.get(f"/profiles/{crowd(10)}").status_code == 200
