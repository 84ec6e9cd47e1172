"""Several Pages, each with its own simulated Meta, while their file changes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.embedded import engine
from tests.helpers.processes import (
    ADA,
    BEN,
    CLEO,
    PAGE_TOKEN,
    VERIFY_TOKEN,
    Service,
    SimulatedMeta,
    a_webhook,
    crowd,
    empty_store,
    open_gates,
    post_webhook,
    wait_until,
)

SHOP_TOKEN = "EAACANARYSHOPTOKEN0123456789"
SHOP_SECRET = "canaryshopsecret0123456789abcdef"
SHOP_ID, SHOP_OTHER_ID = "17841400000000001", "27841400000000001"
READ_WITHIN = 8.0
"""Seconds. A file is checked every two, and this machine may be busy."""


class PagesStack:
    """A service with two workers, a Page named shop, and a Meta for each Page."""

    def __init__(self, folder: Path, near_entries: str) -> None:
        self.file, self.token_file = folder / "pages.toml", folder / "shop_token"
        self.store = engine.start()
        self.meta = SimulatedMeta()
        self.shop_meta = SimulatedMeta(
            f"--token={SHOP_TOKEN}", f"--app-secret={SHOP_SECRET}"
        )
        self.token_file.write_text(SHOP_TOKEN)
        self.starts, self.is_changed = 0, True
        self.write(self.shop())
        self.service = Service(
            PAGE_TOKEN=PAGE_TOKEN,
            PAGES_FILE=str(self.file),
            GRAPH_URL=self.meta.url,
            GRAPH_TIMEOUT="2s",
            STORE_URL=self.store.url,
            WEBHOOK_VERIFY_TOKEN=VERIFY_TOKEN,
            WORKERS="2",
            NEAR_ENTRIES=near_entries,
        )
        self.redis = redis.Redis.from_url(self.store.url)

    def shop(self, name: str = "shop", *more: str) -> str:
        """Return the TOML table of a Page at the shop's Meta."""
        return "\n".join(
            [
                f"[pages.{name}]",
                f'token_file = "{self.token_file}"',
                f'app_secret = "{SHOP_SECRET}"',
                f'url = "{self.shop_meta.url}"',
                *more,
                "",
            ]
        )

    def write(self, *tables: str) -> None:
        """Replace the file of Pages atomically."""
        self.is_changed = True
        new = self.file.with_suffix(".new")
        new.write_text("\n".join(tables))
        os.replace(new, self.file)

    def rotate(self, token: str) -> None:
        """Write another token for the shop into its token file."""
        self.is_changed = True
        self.token_file.write_text(token)

    def start_over(self) -> None:
        """Restore the file of Pages in each worker, and empty the store."""
        self.redis.flushdb()  # The gates too, which a test may have closed.
        if self.is_changed:
            self.token_file.write_text(SHOP_TOKEN)
            self.starts += 1
            # A name that no worker has served before.
            mark = f"start-{self.starts}"
            self.write(
                self.shop("shop", f'ids = ["{SHOP_ID}", "{SHOP_OTHER_ID}"]'),
                self.shop(mark),
            )
            wait_until(lambda: self.is_known(mark), READ_WITHIN, "it is read")
            self.is_changed = False
        empty_store(self.redis, self.service)
        for meta in (self.meta, self.shop_meta):
            meta.order("reset")

    def get(self, path: str) -> Any:
        # On a new connection, so that both workers get requests.
        return self.service.get(path, headers={"Connection": "close"})

    def statuses_of(self, name: str) -> set[int]:
        """Return the statuses with which the workers answer for one of its people."""
        path = f"/pages/{name}/profiles/{ADA}"
        return {self.get(path).status_code for _ in range(12)}

    def is_known(self, name: str) -> bool:
        """Whether each worker serves the Page."""
        return self.statuses_of(name) == {200}

    def is_unknown(self, name: str) -> bool:
        answers = [self.get(f"/pages/{name}/profiles/{ADA}") for _ in range(12)]
        return all(a.json().get("code") == "unknown_page" for a in answers)

    def statuses(self, meta: SimulatedMeta) -> set[int]:
        """Return the statuses that *meta* sent: 400 if it got another Page's token."""
        return {call["status"] for call in meta.overview()["calls"]}

    def entries(self, page: str) -> set[str]:
        found = self.redis.scan_iter(f"pp:e:{{{page}:*")
        return {key.decode().partition(":")[2][2:].split(":")[1][:-1] for key in found}

    def close(self) -> None:
        self.redis.close()
        self.service.stop()
        self.shop_meta.close()
        self.meta.close()
        self.store.__exit__(None, None, None)


@pytest.fixture(
    scope="module", params=["50000", "0"], ids=["near cache", "no near cache"]
)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PagesStack]:
    running = PagesStack(tmp_path_factory.mktemp("pages"), request.param)
    yield running
    running.close()


with_near_cache = pytest.mark.parametrize(
    "running", ["50000"], indirect=True, ids=["near cache"]
)
"""The near cache has no effect on the file, so one run of these tests is enough."""


@pytest.fixture
def stack(running: PagesStack) -> PagesStack:
    """An empty store, with the file and both Metas in their first state."""
    for meta in (running.meta, running.shop_meta):
        meta.order("reset")
    running.start_over()
    return running


def test_each_host_gets_the_calls_and_the_token_of_its_own_page(stack) -> None:
    """Both Pages' people are requested several times, from both workers."""
    people = [ADA, *map(crowd, range(10))]

    for _ in range(3):
        for igsid in people:
            assert stack.get(f"/profiles/{igsid}").status_code == 200
            assert stack.get(f"/pages/shop/profiles/{igsid}").status_code == 200

    for meta in (stack.meta, stack.shop_meta):
        assert stack.statuses(meta) == {200}
        assert meta.overview()["by_person"] == dict.fromkeys(people, 1)
    # The secret too: one app requires a proof, and the other has no secret.
    assert {c["proof"] for c in stack.meta.overview()["calls"]} == {False}
    assert {c["proof"] for c in stack.shop_meta.overview()["calls"]} == {True}
    assert stack.entries("default") == stack.entries("shop") == set(people)


def test_dead_token_stops_only_its_own_page(stack) -> None:
    """And a throttle of one Page does not stop the other."""
    stack.shop_meta.order("token", alive=False)
    assert stack.get(f"/pages/shop/profiles/{ADA}").json()["code"] == "token_rejected"
    stack.meta.order("throttle", code=32, minutes=5)
    assert stack.get(f"/profiles/{ADA}").json()["code"] == "throttled"

    shop = stack.get("/pages/shop/admin/stats").json()["gates"]
    default = stack.get("/admin/stats").json()["gates"]
    stopped = stack.get(f"/pages/shop/profiles/{crowd(1)}")

    assert (shop["token_rejected"]["closed_for"] > 0, shop["throttled"]) == (
        True,
        {"closed_for": 0, "failures": 0, "probing": False},
    )
    assert default["throttled"]["closed_for"] > 240
    assert default["token_rejected"]["failures"] == 0
    assert stopped.json()["code"] == "token_rejected"
    assert stack.shop_meta.calls(crowd(1)) == 0


def test_flush_of_one_page_keeps_the_other_pages_entries(stack) -> None:
    """In the store and in the near caches."""
    for _ in range(4):
        stack.get(f"/profiles/{ADA}"), stack.get(f"/pages/shop/profiles/{ADA}")

    assert stack.service.flush(page="shop") == {"matched": 1, "deleted": 1}

    assert (stack.entries("default"), stack.entries("shop")) == ({ADA}, set())
    for _ in range(4):
        assert "hit" in stack.get(f"/profiles/{ADA}").headers["Cache-Status"]
    again = stack.get(f"/pages/shop/profiles/{ADA}")
    assert again.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"
    assert (stack.meta.calls(), stack.shop_meta.calls()) == (1, 2)


@pytest.mark.parametrize("account", [SHOP_ID, int(SHOP_ID)], ids=["text", "number"])
def test_message_ends_a_refusal_only_at_its_own_page(stack, account) -> None:
    """The webhook is signed with the secret of that Page's app."""
    for path in (f"/profiles/{BEN}", f"/pages/shop/profiles/{BEN}"):
        assert stack.get(path).json()["code"] == "consent_required"
    for meta in (stack.meta, stack.shop_meta):
        meta.person(BEN, profile={})

    body = json.loads(a_webhook(BEN))
    body["entry"][0]["id"] = account
    sent = post_webhook(stack.service, json.dumps(body).encode(), SHOP_SECRET)

    assert sent.json() == {"updates": 1, "writers": 1}
    for _ in range(4):
        assert stack.get(f"/pages/shop/profiles/{BEN}").status_code == 200
        assert stack.get(f"/profiles/{BEN}").json()["code"] == "consent_required"


def test_message_of_a_page_s_own_account_drops_nothing(stack) -> None:
    """The account has two ids: the webhook is to one of them, from the other."""
    path = f"/pages/shop/profiles/{SHOP_OTHER_ID}"
    stack.shop_meta.person(SHOP_OTHER_ID, error={"code": 9010})
    assert stack.get(path).json()["code"] == "not_found"

    body = json.loads(a_webhook(SHOP_OTHER_ID))
    body["entry"][0]["id"] = SHOP_ID
    sent = post_webhook(stack.service, json.dumps(body).encode(), SHOP_SECRET)

    assert sent.json() == {"updates": 1, "writers": 0}
    assert "hit" in stack.get(path).headers["Cache-Status"]


@with_near_cache
def test_page_can_be_added_and_removed_while_serving(stack) -> None:
    """Other Pages are not affected; a removed Page's entries are not served."""
    stack.get(f"/profiles/{ADA}")
    assert stack.is_unknown("outlet")

    stack.write(stack.shop(), stack.shop("outlet"))
    wait_until(lambda: stack.is_known("outlet"), READ_WITHIN, "it is served")
    stack.write(stack.shop())
    wait_until(lambda: stack.is_unknown("outlet"), READ_WITHIN, "it is removed")

    assert stack.entries("outlet") == {ADA}
    assert stack.get(f"/pages/outlet/v25.0/{ADA}").json()["error"]["code"] == 100
    refused = stack.service.request(
        "POST", "/admin/flush", json={"what": "all", "page": "outlet"}
    )
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_page")
    assert stack.entries("outlet") == {ADA}
    assert stack.service.flush()["deleted"] == 2
    assert stack.entries("outlet") == set()
    assert stack.meta.calls() == 1
    stack.write("[pages]")
    wait_until(lambda: stack.is_unknown("shop"), READ_WITHIN, "the last is removed")
    assert stack.get(f"/profiles/{ADA}").status_code == 200
    assert stack.service.get("/readyz").json() == {"status": "ok", "reasons": []}


def test_last_page_cannot_be_removed(tmp_path) -> None:
    """No Page would be left to answer for, or to check the store with."""
    file = tmp_path / "pages.toml"
    with engine.start() as store, closing(SimulatedMeta()) as meta:
        file.write_text(f'[pages.shop]\ntoken = "{PAGE_TOKEN}"\nurl = "{meta.url}"\n')
        service = Service(PAGES_FILE=str(file), STORE_URL=store.url, WORKERS="1")
        try:
            file.write_text("[pages]")
            wait_until(
                lambda: service.get("/readyz").json()["reasons"] == ["pages_file_bad"],
                READ_WITHIN,
                "it is noticed",
            )
            asked, log = service.get(f"/pages/shop/profiles/{ADA}"), service.log()
        finally:
            service.stop()

    assert asked.status_code == 200
    assert "holds no Page, and PROXY_PAGE_TOKEN is not set" in log


@with_near_cache
def test_rotated_token_is_used_and_opens_the_gate(stack) -> None:
    """It is read from the token file; the old token's refusals are deleted."""
    stack.get(f"/pages/shop/profiles/{CLEO}")
    stack.get(f"/profiles/{CLEO}")
    assert (stack.entries("shop"), stack.entries("default")) == ({CLEO}, {CLEO})
    stack.shop_meta.order("token", value=SHOP_TOKEN + "NEW")
    assert stack.get(f"/pages/shop/profiles/{ADA}").json()["code"] == "token_rejected"

    stack.rotate(SHOP_TOKEN + "NEW")

    wait_until(lambda: stack.is_known("shop"), READ_WITHIN, "the new one is used")
    wait_until(lambda: CLEO not in stack.entries("shop"), 5, "Cleo's entry is deleted")
    assert stack.entries("default") == {CLEO}


@with_near_cache
def test_token_in_the_file_of_pages_can_be_rotated(stack) -> None:
    """And so can the host of a Page."""
    stack.get(f"/pages/shop/profiles/{ADA}")
    table = f'[pages.shop]\ntoken = "{PAGE_TOKEN}"\nurl = "{stack.meta.url}"\n'

    stack.write(table)

    def is_elsewhere() -> bool:
        stack.service.flush(page="shop")
        open_gates(stack.redis)
        return stack.is_known("shop") and stack.meta.calls(ADA) > 0

    wait_until(is_elsewhere, READ_WITHIN, "the other Meta is asked")
    assert stack.statuses(stack.meta) == {200}
    assert stack.statuses(stack.shop_meta) == {200}


@with_near_cache
def test_new_secret_is_read_before_any_request_for_its_page(stack) -> None:
    """Meta's webhook may be the first request after the file has changed."""
    new = "canarynewsecret0123456789abcdef0"
    body = a_webhook(BEN)
    assert post_webhook(stack.service, body, new).status_code == 403

    stack.write(stack.shop().replace(SHOP_SECRET, new))

    def is_taken() -> bool:
        return post_webhook(stack.service, body, new).status_code == 200

    wait_until(is_taken, READ_WITHIN, "its signature is accepted")


@with_near_cache
def test_each_worker_reads_the_file_without_a_request(stack) -> None:
    """Otherwise a mistake in the next edit would leave one worker with an old state."""

    def times_read() -> int:
        lines = stack.service.log().splitlines()
        return sum("file read again" in line and "pages.toml" in line for line in lines)

    stack.get("/readyz")
    before = times_read()
    stack.write(stack.shop(), stack.shop("outlet"))

    wait_until(lambda: times_read() == before + 2, READ_WITHIN, "both have")


@with_near_cache
def test_invalid_file_keeps_all_pages_as_they_were(stack) -> None:
    """readyz reports it, and each worker logs it once, without the token."""
    before = stack.service.log().count("file is invalid")
    stack.write(stack.shop(), '[pages.new]\ntokn = "EAASLIP"\n')

    def reasons() -> list[str]:
        reasons: list[str] = stack.get("/readyz").json()["reasons"]
        return reasons

    wait_until(lambda: "pages_file_bad" in reasons(), READ_WITHIN, "it is reported")
    assert stack.statuses_of("shop") == {200}
    assert stack.is_unknown("new")
    log = stack.service.log()
    assert "pages.new: tokn is not a key; did you mean token?" in log
    assert "EAASLIP" not in log
    assert 1 <= log.count("file is invalid") - before <= 2

    stack.write(stack.shop())
    wait_until(
        lambda: all("pages_file_bad" not in reasons() for _ in range(12)),
        READ_WITHIN,
        "it is valid again",
    )


@with_near_cache
def test_readyz_names_the_page_whose_token_file_is_invalid(stack) -> None:
    """The last valid token stays in use."""
    stack.is_changed = True
    stack.token_file.unlink()

    def is_reported() -> bool:
        return "page_token_file_bad:shop" in stack.get("/readyz").json()["reasons"]

    wait_until(is_reported, READ_WITHIN, "it is reported")
    assert stack.get(f"/pages/shop/profiles/{ADA}").status_code == 200


def test_no_output_contains_a_page_s_token_or_secret(stack) -> None:
    """After all tests above: no line of the log, metric, answer or entry has one."""
    stack.get(f"/pages/shop/profiles/{ADA}")
    outputs = [
        stack.service.log(),
        *(stack.get(path).text for path in ("/metrics", "/readyz", "/openapi.yaml")),
        stack.get("/pages/shop/admin/stats").text,
        stack.get(f"/pages/shop/admin/profiles/{ADA}").text,
        *(str(stack.redis.dump(key)) for key in stack.redis.scan_iter("*")),
    ]

    assert "asked Meta" in outputs[0]
    for text in outputs:
        for secret in (SHOP_TOKEN, SHOP_SECRET, PAGE_TOKEN, "canary"):
            assert secret not in text
