"""The fast path with picture links: the same bytes as the view, across midnight too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.storage.near_cache import NearCache
from proxy.web.auth import digest_of
from tests.helpers.builders import ADA, HOUR, NOW, a_profile
from tests.unit.fast_path.test_fast_path import BEN, LOGGED, Service

DAY = 86400
MIDNIGHT = NOW // DAY * DAY
SECRET = "0123456789abcdef"
KEY = {"Authorization": "Bearer pp_reader"}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    return file


@pytest.fixture(params=["near", "far"])
def service(request: pytest.FixtureRequest, tmp_path: Path, secret: Path) -> Service:
    """With API keys and picture links, and with or without a near cache."""
    keys = tmp_path / "keys"
    keys.write_text(f"inbox read {digest_of('pp_reader')}\n")
    near = None
    if request.param == "near":
        near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
        near.renew(0.0)
    service = Service(
        near,
        PROXY_API_KEYS_FILE=str(keys),
        PROXY_PICTURE_LINK_SECRET_FILE=str(secret),
        PROXY_PROFILE_TTL="2h",
        PROXY_ACCESS_LOG="1",
    )
    service.clock.now = MIDNIGHT + 22.5 * HOUR
    service.graph.outcomes[ADA] = a_profile()
    service.graph.outcomes[BEN] = a_profile(
        igsid=BEN, profile_pic=None, picture_expires_at=None
    )
    for igsid in (ADA, BEN, ADA, BEN):
        service.ask(service.view, f"/profiles/{igsid}", headers=KEY)
    service.ask(service.front, headers=KEY)  # This builds the body that is kept.
    service.passed_on = 0
    return service


def link(service: Service, igsid: str = ADA) -> str:
    body = service.ask(service.view, f"/profiles/{igsid}", headers=KEY)[2]
    return "/" + str(json.loads(body)["picture_link"])


@pytest.mark.parametrize("after", [0.0, HOUR, 1.5 * HOUR - 0.1, 1.5 * HOUR, 1.9 * HOUR])
def test_linked_profile_has_the_bytes_of_the_view(
    service: Service, after: float
) -> None:
    """At midnight the link and the ETag change, and the entry stays."""
    service.clock.now += after

    for _ in range(3):
        fast, view = service.ask_both(headers=KEY)
        assert fast == view
        assert b'"picture_link":"profiles/' in fast[2]
        assert fast[1]["Cache-Status"].startswith("profile-proxy; hit; ttl=")
    assert service.passed_on == 0
    end = int(MIDNIGHT) + (3 if after >= 1.5 * HOUR else 2) * DAY
    assert f"expires={end}&".encode() in fast[2]


def test_linked_profile_that_is_stale_is_left_to_the_view(service: Service) -> None:
    """Even though its day has ended too."""
    service.clock.now += 2 * HOUR

    fast, view = service.ask_both(headers=KEY)

    assert fast == view
    assert service.passed_on == 1


@pytest.mark.parametrize("after", [0.0, 1.5 * HOUR])
def test_linked_batch_has_the_bytes_of_the_view(service: Service, after: float) -> None:
    service.clock.now += after

    fast, view = service.ask_both(f"/profiles?ids={ADA}", headers=KEY)

    assert fast == view
    assert b"picture_link" in fast[2]


@pytest.mark.parametrize("fallback", ["", "&fallback=initials"])
@pytest.mark.parametrize("has_picture", [True, False])
@pytest.mark.parametrize("after", [0.0, 1.5 * HOUR])
def test_link_has_the_bytes_of_the_view(
    service: Service, fallback: str, has_picture: bool, after: float
) -> None:
    """Without a key, when it is built and when it is reused; yesterday's link too."""
    url = link(service, ADA if has_picture else BEN) + fallback
    service.clock.now += after
    service.passed_on = 0

    for _ in range(2):
        fast, view = service.ask_both(url)
        assert fast == view
        assert fast[0][:3] == ("302" if has_picture else "200" if fallback else "404")
    assert service.passed_on == 0


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda url: url[:-1] + ("0" if url[-1] != "0" else "1"), "403"),
        (lambda url: url.replace(ADA, BEN), "403"),
        (lambda url: url + "&fallback=other", "400"),
        (lambda url: url + "&x=1", "302"),
        (lambda url: url.partition("?")[0] + "?" + swapped(url), "302"),
        (lambda url: url.replace("/picture", ""), "401"),
    ],
    ids=["changed", "another's", "fallback", "more", "order", "profile"],
)
def test_fast_path_passes_on_links_that_are_not_plain(
    service: Service, change: Any, status: str
) -> None:
    """Unchanged: the view reports what is wrong, if anything is."""
    fast, view = service.ask_both(change(link(service)))

    assert fast[0][:3] == view[0][:3] == status
    assert fast == view
    assert service.passed_on == 1


def swapped(url: str) -> str:
    first, second = url.partition("?")[2].split("&")
    return f"{second}&{first}"


def test_expired_link_is_left_to_the_view(service: Service) -> None:
    url = link(service)
    service.clock.now = MIDNIGHT + 2 * DAY

    assert service.ask(service.front, url)[0] == "403 FORBIDDEN"
    assert service.passed_on == 1


def test_bodies_in_memory_follow_a_new_secret(service: Service, secret: Path) -> None:
    """Otherwise their links would be refused for as long as the entry is fresh."""
    old = service.ask(service.front, headers=KEY)[2]
    url = link(service)
    secret.write_text(SECRET.upper())
    service.ask(service.view, "/readyz")  # It reads the files again.
    service.clock.now += 1

    fast, view = service.ask_both(headers=KEY)

    assert fast == view
    assert fast[2] != old
    assert service.ask(service.front, url)[0] == "403 FORBIDDEN"
    assert service.ask(service.front, link(service))[0] == "302 FOUND"


def test_access_log_names_the_links_as_the_view_does(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """And has neither the query nor the signature."""
    url = link(service)
    caplog.clear()
    caplog.set_level("INFO", "proxy.logs")

    service.ask_both(url)

    fast, view = (
        {k: v for k, v in vars(record).items() if k in {*LOGGED, "key"}}
        for record in caplog.records
        if record.message == "request"
    )
    assert fast == view
    assert fast["key"] == "picture-links"
    assert url[-64:] not in str([vars(record) for record in caplog.records])
