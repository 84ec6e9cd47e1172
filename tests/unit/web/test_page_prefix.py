"""Several Pages at every door: each its own people, and never another's."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from werkzeug.test import EnvironBuilder

from proxy.app import create_app
from proxy.config.settings import Settings
from proxy.domain.failures import Throttled, TokenRejected
from proxy.domain.profile import GraphError, Igsid, Reason
from proxy.fast_path.named_pages import NamedPageFastPaths
from proxy.storage.near_cache import NearCache
from proxy.web.auth import digest_of
from tests.helpers.builders import ADA, a_profile, a_refusal
from tests.helpers.fakes import FakeClock, FakeGraph, FakeTaskQueue, no_wait
from tests.helpers.prometheus import total

BEN = Igsid("1254001234567891")
SHOP_ID, SECRET = "17841400000000001", "shopsecret"
FILE = f"""
[pages.shop]
token = "EAASHOP"
app_secret = "{SECRET}"
ids = ["{SHOP_ID}", "27841400000000001"]
"""
WEBHOOKS = {"WEBHOOK_VERIFY_TOKEN": "word", "APP_SECRET": "oursecret"}


class Service:
    """The whole service with a Page named shop, and a Meta for each."""

    def __init__(
        self, file: Path, near: NearCache | None = None, **settings: str
    ) -> None:
        self.file = file
        file.write_text(FILE)
        self.redis = fakeredis.FakeRedis()
        self.default, self.shop = FakeGraph(), FakeGraph()
        self.shop.token = "5b0b5b0b"
        self.background = FakeTaskQueue()
        self.clock = FakeClock()
        given = {"PAGE_TOKEN": "EAACANARY", "PAGES_FILE": str(file)} | settings
        app = create_app(
            Settings.from_env({f"PROXY_{k}": v for k, v in given.items() if v}),
            client=self.redis,
            near=near,
            graph=self.default,
            graphs={"shop": self.shop},
            later=self.background.submit,
            now=self.clock,
            jitter=lambda: 0.0,
            sleep=no_wait,
        )
        self.front: Any = app.wsgi_app
        client = app.test_client()
        self.get, self.post, self.delete = client.get, client.post, client.delete

    def keys(self) -> set[str]:
        return {key.decode() for key in self.redis.scan_iter("pp:e:*")}


@pytest.fixture
def new_service(tmp_path):
    """Builds the service with more or other settings; "" leaves one out."""
    return lambda **how: Service(tmp_path / "pages.toml", **how)


@pytest.fixture
def service(new_service) -> Service:
    return new_service()


DOORS = [
    ("GET", f"/profiles/{ADA}"),
    ("GET", f"/profiles/{ADA}/picture"),
    ("GET", f"/profiles?ids={ADA}"),
    ("GET", f"/admin/profiles/{ADA}"),
    ("DELETE", f"/admin/profiles/{ADA}"),
    ("POST", f"/admin/profiles/{ADA}/refresh"),
    ("GET", "/admin/stats"),
]


def test_the_same_number_is_another_person_to_another_page(service) -> None:
    """Each asks its own Meta, and has its own entry."""
    service.default.outcomes[ADA] = a_profile(name="Ada")
    service.shop.outcomes[ADA] = a_profile(name="Bea")

    for _ in range(2):
        assert service.get(f"/profiles/{ADA}").json["name"] == "Ada"
        assert service.get(f"/pages/shop/profiles/{ADA}").json["name"] == "Bea"
        assert service.get(f"/pages/default/profiles/{ADA}").json["name"] == "Ada"

    assert (service.default.calls, service.shop.calls) == (1, 1)
    assert service.keys() == {f"pp:e:{{{page}:{ADA}}}" for page in ("default", "shop")}


def test_every_door_is_there_for_a_page(service) -> None:
    """And is about that Page: the default one is asked nothing."""
    service.shop.outcomes[ADA] = a_profile(name="Bea")

    seen = {
        (method, path): service.get(f"/pages/shop{path}").json
        if method == "GET"
        else (service.post if method == "POST" else service.delete)(
            f"/pages/shop{path}"
        ).json
        for method, path in DOORS
    }
    node = service.get(f"/pages/shop/v25.0/{ADA}")

    assert seen["GET", f"/profiles?ids={ADA}"]["profiles"][ADA]["name"] == "Bea"
    assert seen["GET", f"/admin/profiles/{ADA}"]["entry"]["outcome"] == "profile"
    assert seen["DELETE", f"/admin/profiles/{ADA}"]["was_there"]["entry"] is True
    refreshed = seen["POST", f"/admin/profiles/{ADA}/refresh"]
    assert refreshed["entry"]["outcome"] == "profile"
    assert seen["GET", "/admin/stats"]["instance"]["calls"] == 2
    assert node.json == {"name": "Bea", "id": ADA}
    assert service.default.calls == 0


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize("page", ["shopp", "Shop", "%20", "shop:1", "🦄"])
def test_a_page_that_is_none_is_told_as_such(service, method, path, page) -> None:
    """Nothing is asked, stored or dropped, and nothing is said of those there are."""
    service.shop.outcomes[ADA] = a_profile()
    service.get(f"/pages/shop/profiles/{ADA}")
    stored = service.keys()

    ask = {"GET": service.get, "POST": service.post, "DELETE": service.delete}[method]
    answer = ask(f"/pages/{page}{path}")

    assert (answer.status_code, answer.json["code"]) == (404, "unknown_page")
    assert "shop" not in answer.json["detail"]
    assert (service.shop.calls, service.default.calls) == (1, 0)
    assert service.keys() == stored


def test_the_graph_door_does_not_know_the_page_as_meta_would(service) -> None:
    """In Meta's envelope; and not 190, which is about the caller's key."""
    answer = service.get(f"/pages/shopp/v25.0/{ADA}")

    assert answer.status_code == 404
    assert answer.json["error"]["code"] == 100
    assert service.get(f"/pages/shop/v25.0/{ADA}/friends").json["error"]["code"] == 100


def test_who_has_no_key_does_not_learn_which_pages_there_are(
    new_service, tmp_path
) -> None:
    """The key is asked for first, whatever the Page."""
    file = tmp_path / "api_keys"
    file.write_text(f"inbox read {digest_of('key')}\n")
    service = new_service(API_KEYS_FILE=str(file))

    known = service.get(f"/pages/shop/profiles/{ADA}")
    unknown = service.get(f"/pages/shopp/profiles/{ADA}")

    assert (known.status_code, unknown.status_code) == (401, 401)
    assert known.json == unknown.json


def test_without_a_token_of_its_own_there_is_no_default_page(new_service) -> None:
    """Whoever names no Page is told to, at every door."""
    service = new_service(PAGE_TOKEN="")
    service.shop.outcomes[ADA] = a_profile()

    for path in (f"/profiles/{ADA}", f"/profiles?ids={ADA}", "/admin/stats"):
        answer = service.get(path)
        assert (answer.status_code, answer.json["code"]) == (404, "unknown_page")
        assert "name one" in answer.json["detail"]
    assert service.get(f"/v25.0/{ADA}").json["error"]["code"] == 100
    assert service.get(f"/pages/default/profiles/{ADA}").status_code == 404
    assert service.get(f"/pages/shop/profiles/{ADA}").status_code == 200
    assert "store_unavailable" not in service.get("/readyz").json["reasons"]


def test_a_closed_gate_is_one_pages(service) -> None:
    """A dead token of one Page says nothing of another's."""
    service.shop.outcomes[ADA] = TokenRejected(GraphError(190, 463, "tr"))
    service.default.outcomes[ADA] = service.default.outcomes[BEN] = a_profile()

    dead = service.get(f"/pages/shop/profiles/{ADA}")
    stopped = service.get(f"/pages/shop/profiles/{BEN}")
    alive = service.get(f"/profiles/{ADA}")

    assert (dead.status_code, stopped.json["code"]) == (502, "token_rejected")
    assert service.shop.calls == 1
    assert alive.status_code == 200
    stats = service.get("/pages/shop/admin/stats").json
    assert stats["gates"]["token_rejected"]["closed_for"] > 0
    stats = service.get("/admin/stats").json
    assert stats["gates"]["token_rejected"]["closed_for"] == 0
    text = service.get("/metrics").text
    closed = "gate_closed_for_seconds"
    assert total(text, closed, cause="token_rejected", page="shop") > 0
    assert total(text, closed, cause="token_rejected", page="default") == 0


def test_a_throttle_is_one_pages(service) -> None:
    """And so is how much of the quota is used."""
    service.shop.outcomes[ADA] = Throttled()
    service.shop.usage_percent = 100.0
    service.default.outcomes[BEN] = a_profile(igsid=BEN)

    throttled = service.get(f"/pages/shop/profiles/{ADA}")
    other = service.get(f"/profiles/{BEN}")

    assert (throttled.status_code, other.status_code) == (503, 200)
    assert service.get("/pages/shop/admin/stats").json["usage_percent"] == 100.0
    assert service.get("/admin/stats").json["usage_percent"] is None


def test_a_changed_token_drops_only_its_own_pages_refusals(service) -> None:
    """What another Page's token does not show is as true as before."""
    refusal = a_refusal(reason=Reason.NOT_FOUND)
    for graph in (service.default, service.shop):
        graph.outcomes[ADA] = refusal
    for path in (f"/profiles/{ADA}", f"/pages/shop/profiles/{ADA}"):
        service.get(path)
    service.background.run()
    service.shop.token = "5b0b5b0c"

    service.get(f"/pages/shop/profiles/{BEN}")
    service.background.run()

    assert service.keys() == {f"pp:e:{{default:{ADA}}}"}


def test_a_flush_is_of_one_page_or_of_all(service) -> None:
    """Of all where none is named: what a former Page has left is reached too."""
    for path in (f"/profiles/{ADA}", f"/pages/shop/profiles/{ADA}"):
        service.default.outcomes[ADA] = service.shop.outcomes[ADA] = a_profile()
        service.get(path)
    service.redis.set("pp:e:{former:1}", b"{}", ex=60)

    def flush(**order: Any) -> dict[str, int]:
        return service.post("/admin/flush", json={"what": "all"} | order).json

    assert flush(page="shop", dry_run=True) == {"matched": 1, "deleted": 0}
    assert flush(page="shop") == {"matched": 1, "deleted": 1}
    assert service.keys() == {f"pp:e:{{default:{ADA}}}", "pp:e:{former:1}"}
    assert flush(page="default") == {"matched": 1, "deleted": 1}
    assert flush() == {"matched": 1, "deleted": 1}


def test_an_operators_line_names_the_page(service, caplog) -> None:
    """Of an erasure, which has to be matched to somebody."""
    with caplog.at_level(logging.INFO, "proxy"):
        service.delete(f"/pages/shop/admin/profiles/{ADA}")

    [line] = [record for record in caplog.records if record.message == "operator"]
    assert (line.action, line.page) == ("erase", "shop")


# Webhooks.


def post_webhook(service: Service, secret: str = SECRET, **senders: str) -> Any:
    """Who has written to which account."""
    entries = [
        {
            "id": account.removeprefix("a"),
            "time": 1,
            "messaging": [{"sender": {"id": sender}, "message": {"mid": "m"}}],
        }
        for account, sender in senders.items()
    ]
    body = json.dumps({"object": "instagram", "entry": entries}).encode()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    signed = {"X-Hub-Signature-256": f"sha256={digest}"}
    return service.post("/webhooks/instagram", data=body, headers=signed)


def refuse(service: Service) -> None:
    """Ada and Ben have consented to neither Page."""
    for igsid in (ADA, BEN):
        for graph in (service.default, service.shop):
            graph.outcomes[igsid] = a_refusal(igsid=igsid)
        for path in (f"/profiles/{igsid}", f"/pages/shop/profiles/{igsid}"):
            service.get(path)


@pytest.mark.parametrize("account", [SHOP_ID, "27841400000000001"])
def test_who_writes_to_a_page_is_heard_by_that_page(new_service, account) -> None:
    """By either id of its account; what other Pages were told of them stays."""
    service = new_service(**WEBHOOKS)
    refuse(service)

    answer = post_webhook(service, **{f"a{account}": ADA})

    assert answer.json == {"updates": 1, "writers": 1}
    assert service.keys() == {
        f"pp:e:{{default:{ADA}}}",
        f"pp:e:{{default:{BEN}}}",
        f"pp:e:{{shop:{BEN}}}",
    }


def test_an_account_that_no_page_lists_is_the_default_pages(new_service) -> None:
    """So that one Page alone needs to list nothing."""
    service = new_service(**WEBHOOKS)
    refuse(service)

    post_webhook(service, **{"a17841499999999999": ADA, f"a{SHOP_ID}": BEN})

    assert service.keys() == {f"pp:e:{{default:{BEN}}}", f"pp:e:{{shop:{ADA}}}"}


def test_where_there_is_no_default_page_a_strangers_message_is_counted(
    new_service,
) -> None:
    """200, or Meta would send it for 36 hours; nothing is dropped."""
    service = new_service(**WEBHOOKS, PAGE_TOKEN="")
    refuse(service)
    stored = service.keys()

    answer = post_webhook(service, a17841499999999999=ADA)

    assert (answer.status_code, answer.json) == (200, {"updates": 1, "writers": 0})
    assert service.keys() == stored
    text = service.get("/metrics").text
    assert total(text, "webhook_updates_total", kind="message", result="no_page") == 1
    assert total(text, "webhook_updates_total", result="written") == 0


@pytest.mark.parametrize("secret", [SECRET, "oursecret"])
def test_each_pages_secret_signs(new_service, secret: str) -> None:
    """Pages can be of different apps. What is signed with none of them is refused."""
    service = new_service(**WEBHOOKS)

    assert post_webhook(service, secret, a1=ADA).status_code == 200
    assert post_webhook(service, secret + "x", a1=ADA).status_code == 403


def test_who_has_written_is_fetched_for_the_page_they_wrote_to(new_service) -> None:
    """With WEBHOOK_PREFETCH."""
    service = new_service(**WEBHOOKS, WEBHOOK_PREFETCH="1")
    service.shop.outcomes[ADA] = service.default.outcomes[ADA] = a_profile()

    post_webhook(service, **{f"a{SHOP_ID}": ADA, "a1": ADA})
    service.background.run()

    assert (service.shop.asked, service.default.asked) == ([ADA], [ADA])


# Plain hits, before Flask.


def ask(wsgi: Any, url: str, **headers: str) -> tuple[str, dict[str, str], bytes]:
    path, _, query = url.partition("?")
    given = {"Host": "localhost", "X-Request-ID": "same"} | headers
    environ = EnvironBuilder(path=path, query_string=query, headers=given).get_environ()
    environ["REMOTE_ADDR"] = "127.0.0.1"
    told: list[Any] = []
    body = wsgi(environ, lambda *args: told.extend(args))
    return told[0], dict(told[1]), b"".join(body)


@pytest.mark.parametrize("has_copies", [True, False])
@pytest.mark.parametrize(
    "path",
    [
        f"/profiles/{ADA}",
        f"/profiles/{BEN}",
        f"/profiles?ids={ADA},{BEN}",
        f"/profiles/{ADA}/picture",
        f"/profiles/{BEN}/picture?fallback=initials",
        "/profiles/x",
        "/profiles/",
    ],
)
def test_a_pages_hits_are_those_of_the_view(new_service, path, has_copies) -> None:
    """In the same words, and of the same Page, with copies and without."""
    near = None
    if has_copies:
        near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
        near.renew(0.0)
    service = new_service(near=near)
    service.shop.outcomes |= {ADA: a_profile(name="Bea"), BEN: a_refusal(igsid=BEN)}
    service.default.outcomes |= {ADA: a_profile(), BEN: a_profile(igsid=BEN)}
    for igsid in (ADA, BEN, ADA, BEN):  # What is read again, there is a copy of.
        service.get(f"/profiles/{igsid}")
        service.get(f"/pages/shop/profiles/{igsid}")

    view, passed_on = service.front.app, []

    def counted(environ: Any, start_response: Any) -> Any:
        passed_on.append(environ["PATH_INFO"])
        return view(environ, start_response)

    service.front.app = counted
    ours = ask(service.front, f"/pages/shop{path}")
    theirs = ask(view, f"/pages/shop{path}")

    assert ours == theirs
    is_hit = path.startswith("/profiles/1") or (has_copies and "ids=" in path)
    assert passed_on == ([] if is_hit else [f"/pages/shop{path}".partition("?")[0]])
    assert (service.shop.calls, service.default.calls) == (2, 2)


def test_a_pages_hits_are_counted_as_its_own(new_service, caplog) -> None:
    """And have a line in the log, with the Page, where each request has one."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    service = new_service(near=near, ACCESS_LOG="1")
    service.shop.outcomes[ADA] = a_profile()
    service.get(f"/pages/shop/profiles/{ADA}")
    service.get(f"/pages/shop/profiles/{ADA}")  # Now there is a copy.

    with caplog.at_level(logging.INFO, "proxy"):
        service.get(f"/pages/shop/profiles/{ADA}")
        service.get(f"/pages/shop/profiles/{ADA}?fields=name")

    text = service.get("/metrics").text
    assert total(text, "answers_total", source="near", page="shop") >= 1
    assert total(text, "answers_total", page="default") == 0
    lines = [record for record in caplog.records if record.message == "request"]
    assert {(line.route, line.page) for line in lines} == {
        ("/pages/<page>/profiles/<igsid>", "shop")
    }


def test_a_page_that_is_made_anew_gets_a_new_hit_path() -> None:
    """The old one would go on to look after a token that is used no more."""
    served: dict[str, object] = {"shop": "first"}
    pages: Any = SimpleNamespace(get=served.get)
    made: list[object] = []

    def new_fast_path(name: str, page: object) -> Any:
        made.append(page)
        return lambda environ: (200, [], environ["PATH_INFO"].encode())

    hits = NamedPageFastPaths(pages, new_fast_path)

    def told() -> object:
        return hits({"PATH_INFO": "/pages/shop/profiles/1"})

    assert told() == told() == (200, [], b"/profiles/1")
    served["shop"] = "second"
    assert told() == (200, [], b"/profiles/1")
    del served["shop"]
    assert told() is None
    assert made == ["first", "second"]


def test_what_is_no_hit_is_handed_on_as_it_came() -> None:
    pages: Any = SimpleNamespace(get={"shop": "a page"}.get)
    hits = NamedPageFastPaths(pages, lambda name, page: lambda environ: None)
    environ = {"PATH_INFO": "/pages/shop/profiles/1"}

    assert hits(environ) is None
    assert environ == {"PATH_INFO": "/pages/shop/profiles/1"}
