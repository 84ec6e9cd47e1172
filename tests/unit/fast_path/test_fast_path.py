"""The fast path: the same bytes as the view, for every kind of entry and age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from proxy.app import create_app
from proxy.config.settings import Settings
from proxy.domain.entry import Entry, ExpiryReason
from proxy.domain.profile import GraphError, Igsid, Outcome, Profile, Reason, Refusal
from proxy.fast_path.fast_path import MOST_AUTHORIZED
from proxy.fast_path.middleware import FastPathMiddleware
from proxy.storage.codec import encode
from proxy.storage.near_cache import NearCache
from proxy.web.auth import Authenticator, Client, Scope, digest_of
from tests.helpers.builders import ADA, NOW, a_profile, a_refusal
from tests.helpers.fakes import FakeClock, FakeGraph, FakeTaskQueue, no_wait

URL = f"/profiles/{ADA}"
BEN = Igsid("1254001234567891")
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket"}
INITIALS = f"{URL}/picture?fallback=initials"

SentResponse = tuple[str, dict[str, str], bytes]


class CountedRedis(fakeredis.FakeRedis):
    """Records the commands that it executes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.commands: list[str] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.commands.append(args[0])
        return super().execute_command(*args, **options)


class Service:
    """A service with a fast path and a view that can be called separately."""

    def __init__(self, near: NearCache | None = None, **settings: str) -> None:
        self.clock, self.graph = FakeClock(), FakeGraph()
        self.server = fakeredis.FakeServer()
        self.redis = CountedRedis(server=self.server)
        self.background = FakeTaskQueue()
        self.is_draining = False
        app = create_app(
            Settings.from_env({"PROXY_PAGE_TOKEN": "EAACANARY"} | settings),
            client=self.redis,
            near=near,
            graph=self.graph,
            submit=self.background.submit,
            now=self.clock,
            jitter=lambda: 0.0,
            sleep=no_wait,
            draining=lambda: self.is_draining,
        )
        assert isinstance(app.wsgi_app, FastPathMiddleware)
        self.front: Any = app.wsgi_app
        self.view: Any = self.front.app
        self.passed_on = 0

        def counted(environ: Any, start_response: Any) -> Any:
            self.passed_on += 1
            return self.view(environ, start_response)

        self.front.app = counted

    def store(self, outcome: Outcome) -> None:
        self.graph.outcomes[ADA] = outcome
        self.ask(self.view)
        self.background.run()

    def ask(self, wsgi: Any, url: str = URL, **request: Any) -> SentResponse:
        request.setdefault("headers", {})
        request["headers"] = {"Host": "localhost"} | request["headers"]
        path, _, query = url.partition("?")
        request.setdefault("query_string", query)
        environ = EnvironBuilder(path=path, **request).get_environ()
        environ.setdefault("REMOTE_ADDR", "127.0.0.1")
        started: list[Any] = []
        body = wsgi(environ, lambda *args: started.extend(args))
        headers = dict(started[1])
        assert len(headers) == len(started[1]), "a repeated header"
        return started[0], headers, b"".join(body)

    def ask_both(
        self, url: str = URL, **request: Any
    ) -> tuple[SentResponse, SentResponse]:
        """Return both responses, with the same request id so that they can be equal."""
        headers = {"X-Request-ID": "same"} | request.pop("headers", {})
        fast = self.ask(self.front, url, headers=headers, **request)
        view = self.ask(self.view, url, headers=headers, **request)
        return fast, view


@pytest.fixture(params=["near", "far"])
def service(request: pytest.FixtureRequest) -> Service:
    """With a near cache, and with every read from the store."""
    if request.param == "far":
        return Service()
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    return Service(near)


ENTRIES: list[Callable[[], Outcome]] = [
    a_profile,
    lambda: a_profile(name='Zoë 🦄 "x" <b>\\ \u2028 \u0007'),
    lambda: a_profile(name=None, username=None, profile_pic=None),
    lambda: a_profile(picture_expires_at=NOW + 7200.5),
    *(lambda reason=reason: a_refusal(reason=reason) for reason in Reason),
]


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", INITIALS])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("age", [0.0, 0.6, 1.0, 59.9, 299.0])
def test_fast_path_sends_the_bytes_of_the_view(
    service: Service, entry: Callable[[], Outcome], age: float, url: str
) -> None:
    """Status, headers and body, both when they are built and when they are reused."""
    service.store(entry())
    service.clock.now += age

    for _ in range(3):
        fast, view = service.ask_both(url)
        assert fast == view
        assert fast[1]["Cache-Status"].startswith("profile-proxy; hit; ttl=")
    assert service.passed_on == 0


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", INITIALS])
def test_fast_path_counts_one_near_hit_per_request(url: str) -> None:
    """And no miss before it: a picture has no local entry of its own."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    service = Service(near)
    service.store(a_profile())
    service.ask(service.front)
    before = near.hits, near.misses

    service.ask(service.front, url)

    assert (near.hits, near.misses) == (before[0] + 1, before[1])


PROFILE, REFUSED = ("near", "profile"), ("near", "consent_required")


@pytest.mark.parametrize(
    ("url", "counted"),
    [
        (URL, [PROFILE]),
        (f"{URL}/picture", [PROFILE]),
        (INITIALS, [PROFILE]),
        (f"/profiles/{BEN}", [REFUSED]),
        (f"/profiles?ids={ADA},{BEN}", [PROFILE, REFUSED]),
    ],
)
def test_fast_path_counts_every_person_by_source_and_outcome(
    cached_service: Service, url: str, counted: list[tuple[str, str]]
) -> None:
    """In a batch, each of its people."""
    before = answers_of(cached_service)

    cached_service.ask(cached_service.front, url)

    grown = answers_of(cached_service) - before
    assert grown == Counter(counted)


def answers_of(service: Service) -> Counter[tuple[str, str]]:
    """The counts of answers by source and outcome, plain hits among them."""
    fast_path = service.front.fast_path
    return Counter(fast_path._answers) + Counter(fast_path._plain_hits)


def test_cached_responses_share_equal_headers() -> None:
    """Tens of thousands are in memory; only their ETags differ."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    service = Service(near)
    service.graph.outcomes[BEN] = a_profile(igsid=BEN)
    service.store(a_profile())
    for _ in range(2):
        service.ask(service.view, f"/profiles?ids={ADA},{BEN}")
        service.ask(service.front, f"/profiles?ids={ADA},{BEN}")

    one, other = (
        service.front.fast_path._recall(igsid).served.headers(NOW, "same")
        for igsid in (ADA, BEN)
    )

    different = {a[0] for a, b in zip(one, other, strict=True) if a is not b}
    assert different == {"ETag", "X-Request-ID"}


def test_fast_path_age_is_never_negative(service: Service) -> None:
    """The entry may have been stored by a host with a clock that is ahead."""
    service.store(a_profile())
    service.clock.now -= 20

    fast, view = service.ask_both()

    assert fast == view
    assert fast[1]["Age"] == "0"


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", INITIALS])
def test_fast_path_passes_on_entries_that_are_not_fresh(
    service: Service, url: str
) -> None:
    """The view refreshes a stale profile, and fetches an expired refusal again."""
    service.store(a_profile())
    service.ask(service.front, url)
    service.clock.now += 3600

    answer = service.ask(service.front, url)

    assert service.passed_on == 1
    assert answer[1]["Cache-Status"] == "profile-proxy; hit; ttl=0"
    assert len(service.background.jobs) == 1


def test_miss_is_read_from_the_store_once(service: Service) -> None:
    """The view uses the snapshot that the fast path has read."""
    service.graph.outcomes[ADA] = a_profile()

    answer = service.ask(service.front)

    assert answer[1]["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"
    assert service.redis.commands.count("MGET") == 1


def test_stale_entry_is_read_from_the_store_once() -> None:
    """The view uses the snapshot that the fast path has read."""
    service = Service()
    service.store(a_profile())
    service.clock.now += 3600
    service.redis.commands.clear()

    answer = service.ask(service.front)

    assert answer[1]["Cache-Status"] == "profile-proxy; hit; ttl=0"
    assert service.redis.commands.count("MGET") == 1


texts = st.none() | st.text(max_size=20)
links = texts | st.sampled_from(
    [
        "HTTPS://[::1]/ä",
        "https://x.example/a b",
        "https://platform-lookaside.fbsbx.com/?ext=1795000001",
        "https://x.example/\r\nX-Name: x",
        "javascript:alert(1)",
    ]
)
flags = st.none() | st.booleans()
numbers = st.none() | st.integers(-(2**80), 2**80)
ends = st.none() | st.floats(0, 1e11, exclude_max=True)
near_now = st.sampled_from(
    [-3600.0, -59.9, -1.0, -0.7, 0.0, 1e-6, 0.5, 1.0, 59.9, 3600.0]
).map(lambda seconds: NOW + seconds)
profiles = st.builds(
    Profile, st.just(ADA), texts, texts, links, flags, numbers, flags, flags, ends
)
said = st.builds(GraphError, numbers, numbers, texts)
refusals = st.builds(Refusal, st.just(ADA), st.sampled_from(Reason), said)
stored = st.builds(
    Entry,
    profiles | refusals,
    near_now,
    near_now,
    near_now,
    failed_refreshes=st.integers(0, 2**80),
    expiry_reason=st.none() | st.sampled_from(ExpiryReason),
)


# Each example builds three services, so shrinking would take too long.
@settings(deadline=None, max_examples=60, phases=set(Phase) - {Phase.shrink})
@given(stored, st.sampled_from([URL, f"{URL}/picture", INITIALS]))
def test_any_stored_entry_gets_the_same_bytes_from_both(entry: Entry, url: str) -> None:
    """Whatever its content and bounds, and without an error."""
    near_cache = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near_cache.renew(0.0)
    near, far, theirs = Service(near_cache), Service(), Service()
    for world in (near, far, theirs):
        world.redis.set(f"pp:e:{{default:{ADA}}}", encode(entry), ex=60)
    named = {"X-Request-ID": "same"}

    expected = theirs.ask(theirs.view, url, headers=named)

    assert far.ask(far.front, url, headers=named) == expected
    assert near.ask(near.front, url, headers=named) == expected
    if near.passed_on == 0:  # A local entry exists now, if it is usable.
        assert near.ask(near.front, url, headers=named) == expected
    assert far.passed_on == (entry.fresh_until <= NOW)


def test_unreadable_entry_is_not_kept_locally(service: Service) -> None:
    """Otherwise every read of it would fail until it expires."""
    service.graph.outcomes[ADA] = a_profile()
    service.redis.set(f"pp:e:{{default:{ADA}}}", b'[3,"', ex=60)

    statuses = [service.ask(service.front)[1]["Cache-Status"] for _ in range(3)]

    assert statuses[0] == "profile-proxy; fwd=uri-miss; stored"
    assert statuses[1:] == 2 * ["profile-proxy; hit; ttl=3600"]


def test_batch_does_not_keep_an_unreadable_entry_locally(service: Service) -> None:
    """While Meta is down it stays in the store; a local copy would raise an error."""
    service.redis.set(f"pp:e:{{default:{ADA}}}", b'[3,"', ex=60)

    statuses = [
        service.ask(wsgi, url)[0]
        for wsgi in (service.view, service.front)
        for url in (f"/profiles?ids={ADA}", URL, f"{URL}/picture")
    ]

    assert statuses == 2 * ["200 OK", "502 BAD GATEWAY", "502 BAD GATEWAY"]


@pytest.mark.parametrize(
    ("url", "request_"),
    [
        (URL, {"method": "HEAD"}),
        (URL, {"method": "DELETE"}),
        (URL, {"query_string": "fields=name"}),
        (URL, {"query_string": "fields[]=name"}),
        (URL, {"query_string": "anything"}),
        (URL, {"headers": {"If-None-Match": '"x"'}}),
        (URL, {"headers": {"If-None-Match": "*"}}),
        (URL, {"headers": {"Cache-Control": "no-cache"}}),
        (URL, {"data": b"body"}),
        (URL, {"headers": {"Transfer-Encoding": "chunked"}}),
        (URL, {"headers": UPGRADE}),
        (
            URL + "/picture",
            {"headers": UPGRADE},
        ),
        (URL, {"headers": {"Host": "evil.example"}}),
        (URL, {"headers": {"X-Forwarded-For": "10.0.0.1"}}),
        (URL, {"headers": {"Via": "1.1 x"}}),
        (URL, {"environ_base": {"REMOTE_ADDR": "10.0.0.1"}}),
        (URL + "/", {}),
        (URL + "/picture/", {}),
        (URL + "/pictures", {}),
        (URL + "/picture?fallback=none", {}),
        (URL + "/picture?fallback=initials&x=1", {}),
        (URL + "?fallback=initials", {}),
        ("/profiles/picture", {}),
        ("/profiles//picture", {}),
        (URL + "/picture", {"headers": {"Cache-Control": "no-cache"}}),
        (URL + "/picture", {"headers": {"If-None-Match": "*"}}),
        (URL + "/picture", {"headers": {"Transfer-Encoding": "chunked"}}),
        (URL + "/picture", {"data": b"body"}),
        (URL + "/picture", {"method": "HEAD"}),
        ("/profiles/", {}),
        ("/profiles/12", {}),
        ("/profiles/١٢٥٤٠٠١", {}),
        ("/profiles/1254001234567890%20", {}),
        ("/profiles/../profiles/1254001234567890", {}),
        ("//profiles/1254001234567890", {}),
        ("/healthz", {}),
    ],
)
def test_fast_path_passes_on_requests_that_are_not_plain(
    service: Service, url: str, request_: dict[str, Any]
) -> None:
    """Unchanged, whatever is stored."""
    service.store(a_profile())

    fast, view = service.ask_both(url, **request_)

    assert fast == view
    assert service.passed_on == 1


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer pp_reader", "200"),
        ("bearer  pp_reader ", "200"),
        ("Bearer pp_operator", "403"),
        ("Bearer pp_stranger", "401"),
        ("Basic cHBfcmVhZGVy", "401"),
        ("", "401"),
    ],
)
def test_fast_path_answers_only_callers_with_the_read_scope(
    tmp_path: Any, authorization: str, status: str
) -> None:
    """On the first request and on the second, when the key is remembered."""
    keys = tmp_path / "keys"
    keys.write_text(
        f"inbox read {digest_of('pp_reader')}\nops admin {digest_of('pp_operator')}\n"
    )
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    service = Service(near, PROXY_API_KEYS_FILE=str(keys))
    service.graph.outcomes[ADA] = a_profile()
    reader = {"Authorization": "Bearer pp_reader"}
    service.ask(service.view, headers=reader)
    service.ask(service.front, headers=reader)

    for _ in range(2):
        fast, view = service.ask_both(headers={"Authorization": authorization})
        assert fast == view
        assert fast[0].startswith(status)
    assert service.passed_on == (0 if status == "200" else 2)


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", f"/profiles?ids={ADA}"])
@pytest.mark.parametrize("later", [1.0, -1800.0], ids=["later", "set back"])
def test_fast_path_rejects_a_removed_key_after_the_tick(later: float, url: str) -> None:
    """Also if the clock is set back meanwhile."""
    keys = {digest_of("pp_reader"): Client("inbox", frozenset({Scope.READ}))}
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    service = Service(near)
    service.front.fast_path._authenticator = Authenticator(
        lambda: keys, allow_anonymous=False
    )
    service.store(a_profile())
    reader = {"Authorization": "Bearer pp_reader"}
    service.ask(service.front, headers=reader)  # This makes a local entry.
    service.ask(service.front, url, headers=reader)
    assert service.passed_on == 0

    keys.clear()
    service.clock.now += later
    service.ask(service.front, url, headers=reader)

    assert service.passed_on == 1


def test_fast_path_remembers_a_bounded_number_of_keys() -> None:
    """One key can be sent with any number of spaces."""
    keys = {digest_of("pp_reader"): Client("inbox", frozenset({Scope.READ}))}
    service = Service()
    service.front.fast_path._authenticator = Authenticator(
        lambda: keys, allow_anonymous=False
    )
    service.store(a_profile())

    for spaces in range(MOST_AUTHORIZED + 10):
        shown = "Bearer" + " " * (1 + spaces) + "pp_reader"
        assert (
            service.ask(service.front, headers={"Authorization": shown})[0] == "200 OK"
        )

    assert len(service.front.fast_path._authorized) == MOST_AUTHORIZED


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", INITIALS])
def test_fast_path_closes_connections_while_draining(
    service: Service, url: str
) -> None:
    service.store(a_profile())
    service.is_draining = True

    fast, view = service.ask_both(url)

    assert fast == view
    assert fast[1]["Connection"] == "close"
    assert "Keep-Alive" not in fast[1]


@pytest.mark.parametrize(
    "asked", [None, "keep-alive", "Keep-Alive", "close", "TE, close"]
)
@pytest.mark.parametrize(
    "url", [URL, f"{URL}/picture", INITIALS, f"/profiles?ids={ADA}"]
)
def test_only_kept_connections_say_for_how_long(
    cached_service: Service, url: str, asked: str | None
) -> None:
    """The service keeps an idle connection for 75 s; one that is closed it does not."""
    headers = {} if asked is None else {"Connection": asked}

    sent = cached_service.ask(cached_service.front, url, headers=headers)

    is_closed = asked is not None and "close" in asked
    assert sent[1].get("Keep-Alive") == (None if is_closed else "timeout=75")


@pytest.mark.parametrize("sent", [None, "trace-1", "x" * 128, "x" * 129, "a b", ""])
def test_fast_path_echoes_or_makes_the_request_id(
    service: Service, sent: str | None
) -> None:
    """By the same rule as the view, and never the same id twice."""
    service.store(a_profile())
    headers = {} if sent is None else {"X-Request-ID": sent}

    names = [
        service.ask(wsgi, headers=headers)[1]["X-Request-ID"]
        for wsgi in (service.front, service.front, service.view)
    ]

    is_good = sent in ("trace-1", "x" * 128)
    assert set(names) == {sent} if is_good else len(set(names)) == 3


def test_fast_path_notices_a_changed_token(service: Service) -> None:
    """With hits only, no other code would check."""
    service.store(a_profile())
    service.graph.token = "1badcafe"
    service.clock.now += 1.0

    service.ask(service.front)

    assert "token" in service.background.jobs


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", INITIALS])
def test_fast_path_writes_the_access_log_line_of_the_view(
    caplog: pytest.LogCaptureFixture, url: str
) -> None:
    """All fields but the duration."""
    service = Service(PROXY_ACCESS_LOG="1")
    service.store(a_profile())
    caplog.clear()
    caplog.set_level("INFO", "proxy.logs")

    service.ask_both(url)

    fast, view = (
        {k: v for k, v in vars(record).items() if k in LOGGED}
        for record in caplog.records
        if record.message == "request"
    )
    assert fast == view
    assert fast["person"] == "...7890"


LOGGED = {
    *("method", "route", "person", "status", "cache_status"),
    *("request_id", "key"),
}


def test_unreachable_store_is_asked_once_per_request(service: Service) -> None:
    """By the fast path, and not again by the view."""
    service.graph.outcomes[ADA] = a_profile()
    service.server.connected = False

    answer = service.ask(service.front)

    assert answer[0] == "200 OK"
    assert answer[1]["Cache-Status"] == (
        "profile-proxy; fwd=uri-miss; detail=store_unavailable"
    )
    assert len(service.redis.commands) == 1


def test_view_serves_local_entries_during_an_outage() -> None:
    """They are reported as hits, because they are."""
    moment = [0.0]
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: moment[0])
    near.renew(0.0)
    service = Service(near)
    service.store(a_profile())
    service.ask(service.front)
    before = service.graph.calls

    service.server.connected = False
    moment[0] = 10.0
    answer = service.ask(service.front)
    service.clock.now += 30 * 3600
    too_old = service.ask(service.front)

    assert answer[1]["Cache-Status"] == "profile-proxy; hit; ttl=3600"
    assert "hit" not in too_old[1]["Cache-Status"]
    assert service.graph.calls == before + 1


QUERIES = [
    f"ids={ADA}",
    f"ids={ADA},{BEN}",
    f"ids={BEN}%2C{ADA}%2c{BEN}",
    f"ids={BEN}&ids={ADA},{BEN}",
]


@pytest.fixture
def cached_service() -> Service:
    """A service with local entries: a profile of Ada and a refusal about Ben."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    service = Service(near)
    service.graph.outcomes[BEN] = a_refusal(igsid=BEN)
    service.store(a_profile(name='Zoë 🦄 "x" <b>\\ \u2028 \u0007'))
    service.ask(service.view, f"/profiles?ids={ADA},{BEN}")
    service.ask(service.view, f"/profiles?ids={ADA},{BEN}")
    return service


@pytest.mark.parametrize("query", QUERIES)
def test_fast_path_batch_sends_the_bytes_of_the_view(
    cached_service: Service, query: str
) -> None:
    """Each time, and with Connection: close while draining."""
    for _ in range(2):
        fast, view = cached_service.ask_both("/profiles", query_string=query)
        assert fast == view
    assert cached_service.passed_on == 0
    assert fast[1]["Cache-Control"] == "no-store"
    cached_service.is_draining = True
    assert cached_service.ask(cached_service.front, "/profiles", query_string=query)[1][
        "Connection"
    ]


@pytest.mark.parametrize(
    ("url", "request_"),
    [
        ("/profiles", {"query_string": f"ids={ADA}&fields=name"}),
        ("/profiles", {"query_string": f"ids={ADA}", "method": "HEAD"}),
        ("/profiles", {"query_string": f"ids={ADA},12"}),
        ("/profiles", {"query_string": f"ids={ADA},"}),
        ("/profiles", {"query_string": f"ids={ADA}&ids="}),
        ("/profiles", {"query_string": f"ids={ADA}&ids={BEN}&fields=name"}),
        ("/profiles", {"query_string": ""}),
        ("/profiles", {"query_string": "ids=" + ",".join([ADA] * 101)}),
        (
            "/profiles",
            {
                "query_string": f"ids={ADA}",
                "headers": {"Cache-Control": "only-if-cached"},
            },
        ),
        ("/profiles", {"query_string": f"ids={ADA}", "headers": {"Host": "evil.x"}}),
        ("/profiles/", {"query_string": f"ids={ADA}"}),
        ("/profilesx", {"query_string": f"ids={ADA}"}),
        (f"/profiles{ADA}", {}),
    ],
)
def test_fast_path_passes_on_batches_that_are_not_plain(
    cached_service: Service, url: str, request_: dict[str, Any]
) -> None:
    """Unchanged, whichever person is cached."""
    fast, view = cached_service.ask_both(url, **request_)

    assert fast == view
    assert cached_service.passed_on == 1


def test_fast_path_passes_on_a_batch_with_an_uncached_person(
    cached_service: Service,
) -> None:
    """Or with a stale profile, which the view refreshes."""
    cached_service.ask(
        cached_service.front, "/profiles", query_string=f"ids={ADA},77777"
    )
    assert cached_service.passed_on == 1
    cached_service.clock.now += 3600
    cached_service.ask(cached_service.front, "/profiles", query_string=f"ids={ADA}")
    assert cached_service.passed_on == 2
    assert ADA in cached_service.background.jobs


def test_fast_path_batch_writes_the_access_log_line_of_the_view(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without the ids, of which there may be many."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    service = Service(near, PROXY_ACCESS_LOG="1")
    service.store(a_profile())
    service.ask(service.view)
    caplog.clear()
    caplog.set_level("INFO", "proxy.logs")

    service.ask_both("/profiles", query_string=f"ids={ADA}")

    assert service.passed_on == 0
    fast, view = (
        {k: v for k, v in vars(record).items() if k in LOGGED}
        for record in caplog.records
        if record.message == "request"
    )
    assert fast == view
