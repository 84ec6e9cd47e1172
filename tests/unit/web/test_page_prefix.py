"""Several Pages at every route: each has its own people, gate and webhooks."""

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
    """The whole service with a second Page named shop, and a fake Meta for each."""

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
            submit=self.background.submit,
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
    """Build the service with more or other settings; "" removes one."""
    return lambda **how: Service(tmp_path / "pages.toml", **how)


@pytest.fixture
def service(new_service) -> Service:
    return new_service()


ROUTES = [
    ("GET", f"/profiles/{ADA}"),
    ("GET", f"/profiles/{ADA}/picture"),
    ("GET", f"/profiles?ids={ADA}"),
    ("GET", f"/admin/profiles/{ADA}"),
    ("DELETE", f"/admin/profiles/{ADA}"),
    ("POST", f"/admin/profiles/{ADA}/refresh"),
    ("GET", "/admin/stats"),
]


def test_same_number_is_a_different_person_for_each_page(service) -> None:
    """Each Page calls Meta with its own token, and has its own entry."""
    service.default.outcomes[ADA] = a_profile(name="Ada")
    service.shop.outcomes[ADA] = a_profile(name="Bea")

    for _ in range(2):
        assert service.get(f"/profiles/{ADA}").json["name"] == "Ada"
        assert service.get(f"/pages/shop/profiles/{ADA}").json["name"] == "Bea"
        assert service.get(f"/pages/default/profiles/{ADA}").json["name"] == "Ada"

    assert (service.default.calls, service.shop.calls) == (1, 1)
    assert service.keys() == {f"pp:e:{{{page}:{ADA}}}" for page in ("default", "shop")}


def test_every_route_exists_below_the_page_prefix(service) -> None:
    """It is about that Page: no call is made for the default Page."""
    service.shop.outcomes[ADA] = a_profile(name="Bea")

    seen = {
        (method, path): service.get(f"/pages/shop{path}").json
        if method == "GET"
        else (service.post if method == "POST" else service.delete)(
            f"/pages/shop{path}"
        ).json
        for method, path in ROUTES
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


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("page", ["shopp", "Shop", "%20", "shop:1", "🦄"])
def test_unknown_page_is_404(service, method, path, page) -> None:
    """Nothing is fetched, stored or deleted, and no existing Page is named."""
    service.shop.outcomes[ADA] = a_profile()
    service.get(f"/pages/shop/profiles/{ADA}")
    stored = service.keys()

    ask = {"GET": service.get, "POST": service.post, "DELETE": service.delete}[method]
    answer = ask(f"/pages/{page}{path}")

    assert (answer.status_code, answer.json["code"]) == (404, "unknown_page")
    assert "shop" not in answer.json["detail"]
    assert (service.shop.calls, service.default.calls) == (1, 0)
    assert service.keys() == stored


def test_graph_unknown_page_is_code_100(service) -> None:
    """In Meta's envelope. It is not 190, which is about the caller's key."""
    answer = service.get(f"/pages/shopp/v25.0/{ADA}")

    assert answer.status_code == 404
    assert answer.json["error"]["code"] == 100
    assert service.get(f"/pages/shop/v25.0/{ADA}/friends").json["error"]["code"] == 100


def test_caller_without_a_key_does_not_learn_which_pages_exist(
    new_service, tmp_path
) -> None:
    """The key is checked before the Page."""
    file = tmp_path / "api_keys"
    file.write_text(f"inbox read {digest_of('key')}\n")
    service = new_service(API_KEYS_FILE=str(file))

    known = service.get(f"/pages/shop/profiles/{ADA}")
    unknown = service.get(f"/pages/shopp/profiles/{ADA}")

    assert (known.status_code, unknown.status_code) == (401, 401)
    assert known.json == unknown.json


def test_default_page_needs_a_token(new_service) -> None:
    """Without it, every route without a Page is 404 and asks for one."""
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


def test_closed_gate_affects_one_page(service) -> None:
    """The rejected token of one Page means nothing for another."""
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


def test_throttling_affects_one_page(service) -> None:
    """So does the used share of the quota."""
    service.shop.outcomes[ADA] = Throttled()
    service.shop.usage_percent = 100.0
    service.default.outcomes[BEN] = a_profile(igsid=BEN)

    throttled = service.get(f"/pages/shop/profiles/{ADA}")
    other = service.get(f"/profiles/{BEN}")

    assert (throttled.status_code, other.status_code) == (503, 200)
    assert service.get("/pages/shop/admin/stats").json["usage_percent"] == 100.0
    assert service.get("/admin/stats").json["usage_percent"] is None


def test_changed_token_deletes_refusals_of_its_page_only(service) -> None:
    """The refusals of another Page's token are still valid."""
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


def test_flush_is_for_one_page_or_all(service) -> None:
    """Without a Page it flushes all, and entries of former Pages too."""
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


def test_audit_line_names_the_page(service, caplog) -> None:
    """An erasure must be matched to a person of one Page."""
    with caplog.at_level(logging.INFO, "proxy"):
        service.delete(f"/pages/shop/admin/profiles/{ADA}")

    [line] = [record for record in caplog.records if record.message == "operator"]
    assert (line.action, line.page) == ("erase", "shop")


# Webhooks.


def post_webhook(service: Service, secret: str = SECRET, **senders: str) -> Any:
    """Post a signed webhook with a sender for each account."""
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
    """Cache a refusal about Ada and Ben for both Pages."""
    for igsid in (ADA, BEN):
        for graph in (service.default, service.shop):
            graph.outcomes[igsid] = a_refusal(igsid=igsid)
        for path in (f"/profiles/{igsid}", f"/pages/shop/profiles/{igsid}"):
            service.get(path)


@pytest.mark.parametrize("account", [SHOP_ID, "27841400000000001"])
def test_message_to_an_account_affects_its_page_only(new_service, account) -> None:
    """By either id of its account; the refusals of other Pages stay."""
    service = new_service(**WEBHOOKS)
    refuse(service)

    answer = post_webhook(service, **{f"a{account}": ADA})

    assert answer.json == {"updates": 1, "writers": 1}
    assert service.keys() == {
        f"pp:e:{{default:{ADA}}}",
        f"pp:e:{{default:{BEN}}}",
        f"pp:e:{{shop:{BEN}}}",
    }


def test_message_of_a_page_s_own_account_affects_nobody(new_service) -> None:
    """Even where the webhook names the account by its other id."""
    service = new_service(**WEBHOOKS)
    refuse(service)
    stored = service.keys()

    answer = post_webhook(service, **{f"a{SHOP_ID}": "27841400000000001"})

    assert answer.json == {"updates": 1, "writers": 0}
    assert service.keys() == stored


def test_unlisted_account_belongs_to_the_default_page(new_service) -> None:
    """So a service with one Page need not list accounts."""
    service = new_service(**WEBHOOKS)
    refuse(service)

    post_webhook(service, **{"a17841499999999999": ADA, f"a{SHOP_ID}": BEN})

    assert service.keys() == {f"pp:e:{{default:{BEN}}}", f"pp:e:{{shop:{ADA}}}"}


def test_message_to_an_unknown_account_is_counted_without_a_default_page(
    new_service,
) -> None:
    """200, because Meta would resend it for 36 hours; nothing is deleted."""
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
def test_webhook_may_be_signed_with_the_secret_of_any_page(
    new_service, secret: str
) -> None:
    """Pages may belong to different apps. Any other signature is rejected."""
    service = new_service(**WEBHOOKS)

    assert post_webhook(service, secret, a1=ADA).status_code == 200
    assert post_webhook(service, secret + "x", a1=ADA).status_code == 403


def test_webhook_prefetch_is_for_the_page_of_the_account(new_service) -> None:
    """With WEBHOOK_PREFETCH."""
    service = new_service(**WEBHOOKS, WEBHOOK_PREFETCH="1")
    service.shop.outcomes[ADA] = service.default.outcomes[ADA] = a_profile()

    post_webhook(service, **{f"a{SHOP_ID}": ADA, "a1": ADA})
    service.background.run()

    assert (service.shop.asked, service.default.asked) == ([ADA], [ADA])


# The fast path.


def ask(wsgi: Any, url: str, **headers: str) -> tuple[str, dict[str, str], bytes]:
    path, _, query = url.partition("?")
    given = {"Host": "localhost", "X-Request-ID": "same"} | headers
    environ = EnvironBuilder(path=path, query_string=query, headers=given).get_environ()
    environ["REMOTE_ADDR"] = "127.0.0.1"
    started: list[Any] = []
    body = wsgi(environ, lambda *args: started.extend(args))
    return started[0], dict(started[1]), b"".join(body)


@pytest.mark.parametrize("has_near_cache", [True, False])
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
def test_fast_path_of_a_named_page_equals_the_view(
    new_service, path, has_near_cache
) -> None:
    """The same bytes, about the same Page, with a near cache and without."""
    near = None
    if has_near_cache:
        near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
        near.renew(0.0)
    service = new_service(near=near)
    service.shop.outcomes |= {ADA: a_profile(name="Bea"), BEN: a_refusal(igsid=BEN)}
    service.default.outcomes |= {ADA: a_profile(), BEN: a_profile(igsid=BEN)}
    for igsid in (ADA, BEN, ADA, BEN):  # The second read makes a local copy.
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
    is_hit = path.startswith("/profiles/1") or (has_near_cache and "ids=" in path)
    assert passed_on == ([] if is_hit else [f"/pages/shop{path}".partition("?")[0]])
    assert (service.shop.calls, service.default.calls) == (2, 2)


def test_fast_path_of_a_named_page_counts_for_that_page(new_service, caplog) -> None:
    """The access log names the Page, too."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    service = new_service(near=near, ACCESS_LOG="1")
    service.shop.outcomes[ADA] = a_profile()
    service.get(f"/pages/shop/profiles/{ADA}")
    service.get(f"/pages/shop/profiles/{ADA}")  # The second read makes a local copy.

    with caplog.at_level(logging.INFO, "proxy"):
        service.get(f"/pages/shop/profiles/{ADA}")
        service.get(f"/pages/shop/profiles/{ADA}?fields=name")

    text = service.get("/metrics").text
    assert total(text, "answers_total", source="near", page="shop") >= 1
    assert total(text, "answers_total", page="default") == 0
    lines = [record for record in caplog.records if record.message == "request"]
    assert {(line.route, line.page) for line in lines} == {
        ("/profiles/<igsid>", "shop")
    }


def test_replaced_page_gets_a_new_fast_path() -> None:
    """The old one would keep checking a token that is no longer used."""
    served: dict[str, object] = {"shop": "first"}
    pages: Any = SimpleNamespace(get=served.get)
    made: list[object] = []

    def new_fast_path(name: str, page: object) -> Any:
        made.append(page)
        return lambda environ: (200, [], environ["PATH_INFO"].encode())

    fast_paths = NamedPageFastPaths(pages, new_fast_path)

    def response() -> object:
        return fast_paths({"PATH_INFO": "/pages/shop/profiles/1"})

    assert response() == response() == (200, [], b"/profiles/1")
    served["shop"] = "second"
    assert response() == (200, [], b"/profiles/1")
    del served["shop"]
    assert response() is None
    assert made == ["first", "second"]


def test_named_page_fast_path_restores_the_path() -> None:
    pages: Any = SimpleNamespace(get={"shop": "a page"}.get)
    fast_paths = NamedPageFastPaths(pages, lambda name, page: lambda environ: None)
    environ = {"PATH_INFO": "/pages/shop/profiles/1"}

    assert fast_paths(environ) is None
    assert environ == {"PATH_INFO": "/pages/shop/profiles/1"}
