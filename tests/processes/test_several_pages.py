"""Several Pages, each at a Meta of its own, while their file changes."""

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
    empty,
    open_gates,
    post_webhook,
    wait_until,
)

SHOP_TOKEN = "EAACANARYSHOPTOKEN0123456789"
SHOP_SECRET = "canaryshopsecret0123456789abcdef"
SHOP_ID = "17841400000000001"
LOOKED_AT_WITHIN = 8.0
"""Seconds; a file is looked at every two, and this machine may be busy."""


class Stack:
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
        """The table of a Page at the shop's Meta."""
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
        """Replace the file of Pages, in one blow."""
        self.is_changed = True
        new = self.file.with_suffix(".new")
        new.write_text("\n".join(tables))
        os.replace(new, self.file)

    def rotate(self, token: str) -> None:
        """Give the shop another token, in its own file."""
        self.is_changed = True
        self.token_file.write_text(token)

    def start_over(self) -> None:
        """The file as at the start, in each worker, and nothing in the store."""
        self.redis.flushdb()  # The gates too, which a test may have closed.
        if self.is_changed:
            self.token_file.write_text(SHOP_TOKEN)
            self.starts += 1
            # A name that no worker can know from before.
            mark = f"start-{self.starts}"
            self.write(self.shop("shop", f'ids = ["{SHOP_ID}"]'), self.shop(mark))
            wait_until(lambda: self.is_known(mark), LOOKED_AT_WITHIN, "it is read")
            self.is_changed = False
        empty(self.redis, self.service)
        for meta in (self.meta, self.shop_meta):
            meta.order("reset")

    def get(self, path: str) -> Any:
        # On a connection of its own, so that both workers are asked in turn.
        return self.service.get(path, headers={"Connection": "close"})

    def statuses_of(self, name: str) -> set[int]:
        """What is answered about one of the Page's people, by each worker."""
        path = f"/pages/{name}/profiles/{ADA}"
        return {self.get(path).status_code for _ in range(12)}

    def is_known(self, name: str) -> bool:
        """Whether each worker serves the Page."""
        return self.statuses_of(name) == {200}

    def is_unknown(self, name: str) -> bool:
        answers = [self.get(f"/pages/{name}/profiles/{ADA}") for _ in range(12)]
        return all(a.json().get("code") == "unknown_page" for a in answers)

    def statuses(self, meta: SimulatedMeta) -> set[int]:
        """What a Meta has answered: 400 if somebody came with another's token."""
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


@pytest.fixture(scope="module", params=["50000", "0"], ids=["copies", "no copies"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("pages"), request.param)
    yield running
    running.close()


with_copies = pytest.mark.parametrize(
    "running", ["50000"], indirect=True, ids=["copies"]
)
"""What becomes of the file makes no difference without them."""


@pytest.fixture
def stack(running: Stack) -> Stack:
    """An empty store, and the file and both Metas as at the start."""
    for meta in (running.meta, running.shop_meta):
        meta.order("reset")
    running.start_over()
    return running


def test_each_host_sees_the_calls_and_the_token_of_its_own_page(stack) -> None:
    """Both with all their people, several times, from both workers."""
    people = [ADA, *map(crowd, range(10))]

    for _ in range(3):
        for igsid in people:
            assert stack.get(f"/profiles/{igsid}").status_code == 200
            assert stack.get(f"/pages/shop/profiles/{igsid}").status_code == 200

    for meta in (stack.meta, stack.shop_meta):
        assert stack.statuses(meta) == {200}
        assert meta.overview()["by_person"] == dict.fromkeys(people, 1)
    # The secret too: the one's app wants a proof, and the other has none.
    assert {c["proof"] for c in stack.meta.overview()["calls"]} == {False}
    assert {c["proof"] for c in stack.shop_meta.overview()["calls"]} == {True}
    assert stack.entries("default") == stack.entries("shop") == set(people)


def test_a_dead_token_stops_only_its_own_page(stack) -> None:
    """And a Meta that throttles one Page does not make the other wait."""
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


def test_a_flush_of_one_page_leaves_the_others_people(stack) -> None:
    """In the store, and where somebody has copies."""
    for _ in range(4):
        stack.get(f"/profiles/{ADA}"), stack.get(f"/pages/shop/profiles/{ADA}")

    assert stack.service.flush(page="shop") == {"matched": 1, "deleted": 1}

    assert (stack.entries("default"), stack.entries("shop")) == ({ADA}, set())
    for _ in range(4):
        assert "hit" in stack.get(f"/profiles/{ADA}").headers["Cache-Status"]
    asked_again = stack.get(f"/pages/shop/profiles/{ADA}")
    assert asked_again.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"
    assert (stack.meta.calls(), stack.shop_meta.calls()) == (1, 2)


def test_a_message_heals_consent_at_its_own_page(stack) -> None:
    """Signed with the secret of that Page's app."""
    for path in (f"/profiles/{BEN}", f"/pages/shop/profiles/{BEN}"):
        assert stack.get(path).json()["code"] == "consent_required"
    for meta in (stack.meta, stack.shop_meta):
        meta.person(BEN, profile={})

    body = json.loads(a_webhook(BEN))
    body["entry"][0]["id"] = SHOP_ID
    sent = post_webhook(stack.service, json.dumps(body).encode(), SHOP_SECRET)

    assert sent.json() == {"updates": 1, "writers": 1}
    for _ in range(4):
        assert stack.get(f"/pages/shop/profiles/{BEN}").status_code == 200
        assert stack.get(f"/profiles/{BEN}").json()["code"] == "consent_required"


@with_copies
def test_a_page_is_added_and_removed_while_it_runs(stack) -> None:
    """Others notice nothing; what a Page has left behind is served to nobody."""
    stack.get(f"/profiles/{ADA}")
    assert stack.is_unknown("outlet")

    stack.write(stack.shop(), stack.shop("outlet"))
    wait_until(lambda: stack.is_known("outlet"), LOOKED_AT_WITHIN, "it is served")
    stack.write(stack.shop())
    wait_until(lambda: stack.is_unknown("outlet"), LOOKED_AT_WITHIN, "it has gone")

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
    wait_until(lambda: stack.is_unknown("shop"), LOOKED_AT_WITHIN, "the last has gone")
    assert stack.get(f"/profiles/{ADA}").status_code == 200
    assert stack.service.get("/readyz").json() == {"status": "ok", "reasons": []}


def test_the_last_page_of_all_stays(tmp_path) -> None:
    """There would be nobody left to answer for, or to ask about the store."""
    file = tmp_path / "pages.toml"
    with engine.start() as store, closing(SimulatedMeta()) as meta:
        file.write_text(f'[pages.shop]\ntoken = "{PAGE_TOKEN}"\nurl = "{meta.url}"\n')
        service = Service(PAGES_FILE=str(file), STORE_URL=store.url, WORKERS="1")
        try:
            file.write_text("[pages]")
            wait_until(
                lambda: service.get("/readyz").json()["reasons"] == ["pages_file_bad"],
                LOOKED_AT_WITHIN,
                "it is noticed",
            )
            asked, log = service.get(f"/pages/shop/profiles/{ADA}"), service.log()
        finally:
            service.stop()

    assert asked.status_code == 200
    assert "holds no Page, and PROXY_PAGE_TOKEN is not set" in log


@with_copies
def test_a_rotated_token_is_used_and_opens_the_gate(stack) -> None:
    """From its own file; what the old one did not show is asked again."""
    stack.get(f"/pages/shop/profiles/{CLEO}")
    stack.get(f"/profiles/{CLEO}")
    assert (stack.entries("shop"), stack.entries("default")) == ({CLEO}, {CLEO})
    stack.shop_meta.order("token", value=SHOP_TOKEN + "NEW")
    assert stack.get(f"/pages/shop/profiles/{ADA}").json()["code"] == "token_rejected"

    stack.rotate(SHOP_TOKEN + "NEW")

    wait_until(lambda: stack.is_known("shop"), LOOKED_AT_WITHIN, "the new one is used")
    wait_until(lambda: CLEO not in stack.entries("shop"), 5, "it is followed up")
    assert stack.entries("default") == {CLEO}


@with_copies
def test_a_token_is_rotated_in_the_file_of_pages_too(stack) -> None:
    """The Page's other host can change in the same way."""
    stack.get(f"/pages/shop/profiles/{ADA}")
    table = f'[pages.shop]\ntoken = "{PAGE_TOKEN}"\nurl = "{stack.meta.url}"\n'

    stack.write(table)

    def is_elsewhere() -> bool:
        stack.service.flush(page="shop")
        open_gates(stack.redis)
        return stack.is_known("shop") and stack.meta.calls(ADA) > 0

    wait_until(is_elsewhere, LOOKED_AT_WITHIN, "the other Meta is asked")
    assert stack.statuses(stack.meta) == {200}
    assert stack.statuses(stack.shop_meta) == {200}


@with_copies
def test_a_new_secret_signs_though_nobody_asks_for_the_page(stack) -> None:
    """Meta may be the first to come after the file was changed."""
    new = "canarynewsecret0123456789abcdef0"
    body = a_webhook(BEN)
    assert post_webhook(stack.service, body, new).status_code == 403

    stack.write(stack.shop().replace(SHOP_SECRET, new))

    def is_taken() -> bool:
        return post_webhook(stack.service, body, new).status_code == 200

    wait_until(is_taken, LOOKED_AT_WITHIN, "it signs")


@with_copies
def test_each_worker_reads_the_file_though_nobody_asks(stack) -> None:
    """Or a mistake in the next edit would leave one with what was there before."""

    def times_read() -> int:
        lines = stack.service.log().splitlines()
        return sum("file read again" in line and "pages.toml" in line for line in lines)

    stack.get("/readyz")
    before = times_read()
    stack.write(stack.shop(), stack.shop("outlet"))

    wait_until(lambda: times_read() == before + 2, LOOKED_AT_WITHIN, "both have")


@with_copies
def test_a_bad_file_keeps_all_pages_as_they_were(stack) -> None:
    """It is told by readyz and, once by each worker, in the log; without the token."""
    before = stack.service.log().count("file is no good")
    stack.write(stack.shop(), '[pages.new]\ntokn = "EAASLIP"\n')

    def reasons() -> list[str]:
        told: list[str] = stack.get("/readyz").json()["reasons"]
        return told

    wait_until(lambda: "pages_file_bad" in reasons(), LOOKED_AT_WITHIN, "it is told")
    assert stack.statuses_of("shop") == {200}
    assert stack.is_unknown("new")
    log = stack.service.log()
    assert "pages.new: tokn is not a key; did you mean token?" in log
    assert "EAASLIP" not in log
    assert 1 <= log.count("file is no good") - before <= 2

    stack.write(stack.shop())
    wait_until(
        lambda: all("pages_file_bad" not in reasons() for _ in range(12)),
        LOOKED_AT_WITHIN,
        "it is good again",
    )


@with_copies
def test_a_pages_own_bad_file_is_told_with_its_name(stack) -> None:
    """The last good token stays in use."""
    stack.is_changed = True
    stack.token_file.unlink()

    def is_told() -> bool:
        return "page_token_file_bad:shop" in stack.get("/readyz").json()["reasons"]

    wait_until(is_told, LOOKED_AT_WITHIN, "it is told")
    assert stack.get(f"/pages/shop/profiles/{ADA}").status_code == 200


def test_no_pages_token_or_secret_is_told(stack) -> None:
    """After all of the above: in no line of the log, metric, answer or entry."""
    stack.get(f"/pages/shop/profiles/{ADA}")
    told = [
        stack.service.log(),
        *(stack.get(path).text for path in ("/metrics", "/readyz", "/openapi.yaml")),
        stack.get("/pages/shop/admin/stats").text,
        stack.get(f"/pages/shop/admin/profiles/{ADA}").text,
        *(str(stack.redis.dump(key)) for key in stack.redis.scan_iter("*")),
    ]

    assert "asked Meta" in told[0]
    for text in told:
        for secret in (SHOP_TOKEN, SHOP_SECRET, PAGE_TOKEN, "canary"):
            assert secret not in text
