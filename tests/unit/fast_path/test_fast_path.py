"""Hits before Flask: in the view's own words, for every kind of entry and moment."""

from __future__ import annotations

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

FetchResult = tuple[str, dict[str, str], bytes]


class CountedRedis(fakeredis.FakeRedis):
    """Remembers what it was told."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.commands: list[str] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.commands.append(args[0])
        return super().execute_command(*args, **options)


class Both:
    """A service of which the hit path and the view behind it can be asked apart."""

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
            later=self.background.submit,
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

    def ask(self, wsgi: Any, url: str = URL, **request: Any) -> FetchResult:
        request.setdefault("headers", {})
        request["headers"] = {"Host": "localhost"} | request["headers"]
        path, _, query = url.partition("?")
        request.setdefault("query_string", query)
        environ = EnvironBuilder(path=path, **request).get_environ()
        environ.setdefault("REMOTE_ADDR", "127.0.0.1")
        told: list[Any] = []
        body = wsgi(environ, lambda *args: told.extend(args))
        headers = dict(told[1])
        assert len(headers) == len(told[1]), "a header twice"
        return told[0], headers, b"".join(body)

    def ask_both(
        self, url: str = URL, **request: Any
    ) -> tuple[FetchResult, FetchResult]:
        """What both say, with a name for the request so that it is the same."""
        headers = {"X-Request-ID": "same"} | request.pop("headers", {})
        ours = self.ask(self.front, url, headers=headers, **request)
        theirs = self.ask(self.view, url, headers=headers, **request)
        return ours, theirs


@pytest.fixture(params=["near", "far"])
def both(request: pytest.FixtureRequest) -> Both:
    """With copies of its own, and with every read from the store."""
    if request.param == "far":
        return Both()
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    return Both(near)


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
def test_it_says_what_the_view_says(
    both: Both, entry: Callable[[], Outcome], age: float, url: str
) -> None:
    """Status, headers and body; the first time, and from what was then made."""
    both.store(entry())
    both.clock.now += age

    for _ in range(3):
        ours, theirs = both.ask_both(url)
        assert ours == theirs
        assert ours[1]["Cache-Status"].startswith("profile-proxy; hit; ttl=")
    assert both.passed_on == 0


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", INITIALS])
def test_whatever_is_asked_of_a_copy_is_one_near_hit(url: str) -> None:
    """And no miss before: a picture has no copy of its own."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    both = Both(near)
    both.store(a_profile())
    both.ask(both.front)
    before = near.hits, near.misses

    both.ask(both.front, url)

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
def test_whoever_is_answered_of_is_counted(
    copies: Both, url: str, counted: list[tuple[str, str]]
) -> None:
    """By the source, and as what they are; on a page, each of them."""
    counts = copies.front.fast_path._answers
    before = dict(counts)

    copies.ask(copies.front, url)

    grown = {key: counts[key] - before[key] for key in counts}
    assert {key: n for key, n in grown.items() if n} == dict.fromkeys(counted, 1)


def test_copies_share_the_headers_that_are_alike() -> None:
    """Tens of thousands lie in memory; and each has an ETag of its own."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    both = Both(near)
    both.graph.outcomes[BEN] = a_profile(igsid=BEN)
    both.store(a_profile())
    for _ in range(2):
        both.ask(both.view, f"/profiles?ids={ADA},{BEN}")
        both.ask(both.front, f"/profiles?ids={ADA},{BEN}")

    one, other = (
        both.front.fast_path._recall(igsid).served.headers(NOW, "same")
        for igsid in (ADA, BEN)
    )

    unlike = {a[0] for a, b in zip(one, other, strict=True) if a is not b}
    assert unlike == {"ETag", "X-Request-ID"}


def test_a_clock_that_is_behind_makes_no_negative_age(both: Both) -> None:
    """The entry may have been stored by a host whose clock is ahead."""
    both.store(a_profile())
    both.clock.now -= 20

    ours, theirs = both.ask_both()

    assert ours == theirs
    assert ours[1]["Age"] == "0"


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", INITIALS])
def test_it_hands_on_what_is_no_longer_fresh(both: Both, url: str) -> None:
    """A stale profile is refreshed, an expired refusal asked for anew, by the view."""
    both.store(a_profile())
    both.ask(both.front, url)
    both.clock.now += 3600

    answer = both.ask(both.front, url)

    assert both.passed_on == 1
    assert answer[1]["Cache-Status"] == "profile-proxy; hit; ttl=0"
    assert len(both.background.jobs) == 1


def test_a_miss_is_looked_for_once(both: Both) -> None:
    """What the hit path has seen in the store the view does not read again."""
    both.graph.outcomes[ADA] = a_profile()

    answer = both.ask(both.front)

    assert answer[1]["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"
    assert both.redis.commands.count("MGET") == 1


def test_what_is_stale_is_looked_for_once() -> None:
    """The view answers from what the hit path has seen."""
    both = Both()
    both.store(a_profile())
    both.clock.now += 3600
    both.redis.commands.clear()

    answer = both.ask(both.front)

    assert answer[1]["Cache-Status"] == "profile-proxy; hit; ttl=0"
    assert both.redis.commands.count("MGET") == 1


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


# Three worlds for each, which is too much to look for a smaller one that fails.
@settings(deadline=None, max_examples=60, phases=set(Phase) - {Phase.shrink})
@given(stored, st.sampled_from([URL, f"{URL}/picture", INITIALS]))
def test_whatever_is_stored_is_told_in_the_same_words(entry: Entry, url: str) -> None:
    """Whoever has written it, and whatever its bounds; and nothing is an error."""
    copies = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    copies.renew(0.0)
    near, far, theirs = Both(copies), Both(), Both()
    for world in (near, far, theirs):
        world.redis.set(f"pp:e:{{default:{ADA}}}", encode(entry), ex=60)
    named = {"X-Request-ID": "same"}

    told = theirs.ask(theirs.view, url, headers=named)

    assert far.ask(far.front, url, headers=named) == told
    assert near.ask(near.front, url, headers=named) == told
    if near.passed_on == 0:  # There is a copy now, if it may be used.
        assert near.ask(near.front, url, headers=named) == told
    assert far.passed_on == (entry.fresh_until <= NOW)


def test_no_copy_is_kept_of_what_cannot_be_read(both: Both) -> None:
    """It would be read again, and again be no entry, for as long as it lives."""
    both.graph.outcomes[ADA] = a_profile()
    both.redis.set(f"pp:e:{{default:{ADA}}}", b'[3,"', ex=60)

    told = [both.ask(both.front)[1]["Cache-Status"] for _ in range(3)]

    assert told[0] == "profile-proxy; fwd=uri-miss; stored"
    assert told[1:] == 2 * ["profile-proxy; hit; ttl=3600"]


def test_a_page_keeps_no_copy_of_what_cannot_be_read(both: Both) -> None:
    """While Meta is away it lies there, and to read it again would be an error."""
    both.redis.set(f"pp:e:{{default:{ADA}}}", b'[3,"', ex=60)

    told = [
        both.ask(wsgi, url)[0]
        for wsgi in (both.view, both.front)
        for url in (f"/profiles?ids={ADA}", URL, f"{URL}/picture")
    ]

    assert told == 2 * ["200 OK", "502 BAD GATEWAY", "502 BAD GATEWAY"]


@pytest.mark.parametrize(
    ("url", "request_"),
    [
        (URL, {"method": "HEAD"}),
        (URL, {"method": "DELETE"}),
        (URL, {"query_string": "fields=name"}),
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
def test_everything_else_is_the_view_s(
    both: Both, url: str, request_: dict[str, Any]
) -> None:
    """Handed on untouched, whatever is stored."""
    both.store(a_profile())

    ours, theirs = both.ask_both(url, **request_)

    assert ours == theirs
    assert both.passed_on == 1


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
def test_only_who_may_read_is_answered(
    tmp_path: Any, authorization: str, status: str
) -> None:
    """The first time and the second, when it is remembered who that was."""
    keys = tmp_path / "keys"
    keys.write_text(
        f"inbox read {digest_of('pp_reader')}\nops admin {digest_of('pp_operator')}\n"
    )
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    both = Both(near, PROXY_API_KEYS_FILE=str(keys))
    both.graph.outcomes[ADA] = a_profile()
    reader = {"Authorization": "Bearer pp_reader"}
    both.ask(both.view, headers=reader)
    both.ask(both.front, headers=reader)

    for _ in range(2):
        ours, theirs = both.ask_both(headers={"Authorization": authorization})
        assert ours == theirs
        assert ours[0].startswith(status)
    assert both.passed_on == (0 if status == "200" else 2)


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", f"/profiles?ids={ADA}"])
@pytest.mark.parametrize("later", [1.0, -1800.0], ids=["later", "set back"])
def test_a_key_that_is_taken_away_admits_nobody(later: float, url: str) -> None:
    """Nor is it forgotten to look, should the clock be set back meanwhile."""
    keys = {digest_of("pp_reader"): Client("inbox", frozenset({Scope.READ}))}
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    both = Both(near)
    both.front.fast_path._authenticator = Authenticator(
        lambda: keys, allow_anonymous=False
    )
    both.store(a_profile())
    reader = {"Authorization": "Bearer pp_reader"}
    both.ask(both.front, headers=reader)  # A copy is made of what it has read.
    both.ask(both.front, url, headers=reader)
    assert both.passed_on == 0

    keys.clear()
    both.clock.now += later
    both.ask(both.front, url, headers=reader)

    assert both.passed_on == 1


def test_what_is_remembered_of_keys_has_a_limit() -> None:
    """One key can be shown in as many ways as there are spaces."""
    keys = {digest_of("pp_reader"): Client("inbox", frozenset({Scope.READ}))}
    both = Both()
    both.front.fast_path._authenticator = Authenticator(
        lambda: keys, allow_anonymous=False
    )
    both.store(a_profile())

    for spaces in range(MOST_AUTHORIZED + 10):
        shown = "Bearer" + " " * (1 + spaces) + "pp_reader"
        assert both.ask(both.front, headers={"Authorization": shown})[0] == "200 OK"

    assert len(both.front.fast_path._authorized) == MOST_AUTHORIZED


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", INITIALS])
def test_while_it_drains_callers_are_sent_elsewhere(both: Both, url: str) -> None:
    both.store(a_profile())
    both.is_draining = True

    ours, theirs = both.ask_both(url)

    assert ours == theirs
    assert ours[1]["Connection"] == "close"


@pytest.mark.parametrize("sent", [None, "trace-1", "x" * 128, "x" * 129, "a b", ""])
def test_a_request_s_name_comes_back_or_is_made(both: Both, sent: str | None) -> None:
    """Both judge a given name alike, and neither gives the same name twice."""
    both.store(a_profile())
    headers = {} if sent is None else {"X-Request-ID": sent}

    names = [
        both.ask(wsgi, headers=headers)[1]["X-Request-ID"]
        for wsgi in (both.front, both.front, both.view)
    ]

    is_good = sent in ("trace-1", "x" * 128)
    assert set(names) == {sent} if is_good else len(set(names)) == 3


def test_a_changed_token_is_noticed_by_hits_too(both: Both) -> None:
    """With nothing but hits, nobody else would look."""
    both.store(a_profile())
    both.graph.token = "1badcafe"
    both.clock.now += 1.0

    both.ask(both.front)

    assert "token" in both.background.jobs


@pytest.mark.parametrize("url", [URL, f"{URL}/picture", INITIALS])
def test_the_access_log_has_the_same_line(
    caplog: pytest.LogCaptureFixture, url: str
) -> None:
    """But for how long it took."""
    both = Both(PROXY_ACCESS_LOG="1")
    both.store(a_profile())
    caplog.clear()
    caplog.set_level("INFO", "proxy.logs")

    both.ask_both(url)

    ours, theirs = (
        {k: v for k, v in vars(record).items() if k in LOGGED}
        for record in caplog.records
        if record.message == "request"
    )
    assert ours == theirs
    assert ours["person"] == "…7890"


LOGGED = {"method", "route", "person", "status", "cache_status", "request_id"}


def test_a_store_that_is_away_is_asked_once_for_each_request(both: Both) -> None:
    """Not by the hit path, and then again by the view."""
    both.graph.outcomes[ADA] = a_profile()
    both.server.connected = False

    answer = both.ask(both.front)

    assert answer[0] == "200 OK"
    assert answer[1]["Cache-Status"] == (
        "profile-proxy; fwd=uri-miss; detail=store_unavailable"
    )
    assert len(both.redis.commands) == 1


def test_in_an_outage_copies_are_answered() -> None:
    """By the view, who may; as hits, since that is what they are."""
    moment = [0.0]
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: moment[0])
    near.renew(0.0)
    both = Both(near)
    both.store(a_profile())
    both.ask(both.front)
    before = both.graph.calls

    both.server.connected = False
    moment[0] = 10.0
    answer = both.ask(both.front)
    both.clock.now += 30 * 3600
    too_old = both.ask(both.front)

    assert answer[1]["Cache-Status"] == "profile-proxy; hit; ttl=3600"
    assert "hit" not in too_old[1]["Cache-Status"]
    assert both.graph.calls == before + 1


QUERIES = [
    f"ids={ADA}",
    f"ids={ADA},{BEN}",
    f"ids={BEN}%2C{ADA}%2c{BEN}",
]


@pytest.fixture
def copies() -> Both:
    """Ada has a profile and Ben has not consented, and both are copied."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    both = Both(near)
    both.graph.outcomes[BEN] = a_refusal(igsid=BEN)
    both.store(a_profile(name='Zoë 🦄 "x" <b>\\ \u2028 \u0007'))
    both.ask(both.view, f"/profiles?ids={ADA},{BEN}")
    both.ask(both.view, f"/profiles?ids={ADA},{BEN}")
    return both


@pytest.mark.parametrize("query", QUERIES)
def test_a_page_is_what_the_view_says(copies: Both, query: str) -> None:
    """And counted as so many answers."""
    for _ in range(2):
        ours, theirs = copies.ask_both("/profiles", query_string=query)
        assert ours == theirs
    assert copies.passed_on == 0
    assert ours[1]["Cache-Control"] == "no-store"
    copies.is_draining = True
    assert copies.ask(copies.front, "/profiles", query_string=query)[1]["Connection"]


@pytest.mark.parametrize(
    ("url", "request_"),
    [
        ("/profiles", {"query_string": f"ids={ADA}&fields=name"}),
        ("/profiles", {"query_string": f"ids={ADA}", "method": "HEAD"}),
        ("/profiles", {"query_string": f"ids={ADA},12"}),
        ("/profiles", {"query_string": f"ids={ADA},"}),
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
def test_every_other_page_is_the_view_s(
    copies: Both, url: str, request_: dict[str, Any]
) -> None:
    """Handed on untouched, whoever is known."""
    ours, theirs = copies.ask_both(url, **request_)

    assert ours == theirs
    assert copies.passed_on == 1


def test_a_page_with_somebody_who_is_not_known_is_the_view_s(copies: Both) -> None:
    """Or whose profile is stale: it has to be refreshed."""
    copies.ask(copies.front, "/profiles", query_string=f"ids={ADA},77777")
    assert copies.passed_on == 1
    copies.clock.now += 3600
    copies.ask(copies.front, "/profiles", query_string=f"ids={ADA}")
    assert copies.passed_on == 2
    assert ADA in copies.background.jobs


def test_the_access_log_has_the_same_line_for_a_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without the ids, which are many and in the query."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    both = Both(near, PROXY_ACCESS_LOG="1")
    both.store(a_profile())
    both.ask(both.view)
    caplog.clear()
    caplog.set_level("INFO", "proxy.logs")

    both.ask_both("/profiles", query_string=f"ids={ADA}")

    assert both.passed_on == 0
    ours, theirs = (
        {k: v for k, v in vars(record).items() if k in LOGGED}
        for record in caplog.records
        if record.message == "request"
    )
    assert ours == theirs
