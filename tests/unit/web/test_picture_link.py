"""Picture links: what they open, for how long, and who pays for their misses."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from proxy.app import create_app
from proxy.config.settings import Settings
from proxy.domain.failures import GraphTimeout
from proxy.domain.profile import Igsid
from tests.helpers.builders import ADA, NOW, a_profile, a_refusal

BEN = Igsid("1254001234567891")
SECRET = "0123456789abcdef"
READER = "pp_reader"
KEY = {"Authorization": f"Bearer {READER}"}
ELSEWHERE = {"Host": "inbox.example", "X-Forwarded-For": "203.0.113.9"}
DAY = 86400
MIDNIGHT = NOW // DAY * DAY


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """API keys, a secret in a file, and a second Page."""
    keys, secret, pages = (tmp_path / name for name in ("keys", "secret", "pages"))
    digest = hashlib.sha256(READER.encode()).hexdigest()
    keys.write_text(f"inbox read {digest}\n")
    secret.write_text(SECRET + "\n")
    pages.write_text('[pages.shop]\ntoken = "EAASHOP"\n')
    return {
        "PROXY_PAGE_TOKEN": "EAACANARY",
        "PROXY_API_KEYS_FILE": str(keys),
        "PROXY_PICTURE_LINK_SECRET_FILE": str(secret),
        "PROXY_PAGES_FILE": str(pages),
        "PROXY_MISSES_PER_MINUTE": "2",
    }


@pytest.fixture
def new_client(graph, clock, store, background):
    def new_client(env: dict[str, str]) -> Any:
        app = create_app(
            Settings.from_env(env),
            client=store,
            graph=graph,
            graphs={"shop": graph},
            submit=background.submit,
            now=clock,
            jitter=lambda: 0.0,
            sleep=lambda seconds: None,
        )
        return app.test_client()

    return new_client


@pytest.fixture
def linked(new_client, env, graph):
    """A service with picture links, and Ada's profile at Meta."""
    graph.outcomes[ADA] = a_profile()
    return new_client(env)


def link_of(client: Any, prefix: str = "/") -> str:
    answer = client.get(f"{prefix}profiles/{ADA}", headers=KEY)
    return prefix + str(answer.json["picture_link"])


@pytest.mark.parametrize("prefix", ["/", "/pages/default/", "/pages/shop/"])
def test_link_opens_the_picture_without_a_key(linked, prefix) -> None:
    """From any address and host: the signature authorizes it, as a webhook's does."""
    link = link_of(linked, prefix)
    profile = linked.get(f"{prefix}profiles/{ADA}", headers=KEY).json

    for method in ("GET", "HEAD"):
        answer = linked.open(link, method=method, headers=ELSEWHERE)
        assert answer.status_code == 302
        assert answer.headers["Location"] == profile["profile_pic"]
    drawn = linked.get(f"{link}&fallback=initials", headers=ELSEWHERE)
    assert drawn.status_code == 302


def test_link_stands_wherever_profile_pic_is_asked_for(linked) -> None:
    """In a batch too; a person without a picture has one, for the initials."""
    one = linked.get(f"/profiles/{ADA}", headers=KEY).json
    batch = linked.get(f"/profiles?ids={ADA}", headers=KEY).json
    some = linked.get(f"/profiles/{ADA}?fields=profile_pic", headers=KEY).json
    none = linked.get(f"/profiles/{ADA}?fields=name", headers=KEY).json
    node = linked.get(f"/v25.0/{ADA}?fields=profile_pic", headers=KEY).json

    assert list(one)[-1] == "picture_link"
    assert batch["profiles"][ADA] == one
    assert some["picture_link"] == one["picture_link"]
    assert "picture_link" not in none
    assert set(node) == {"id", "profile_pic"}


def test_link_of_a_person_without_a_picture_draws_initials(
    new_client, env, graph
) -> None:
    graph.outcomes[ADA] = a_profile(
        name="Ada Lovelace", profile_pic=None, picture_expires_at=None
    )
    link = link_of(client := new_client(env))

    drawn = client.get(f"{link}&fallback=initials")
    plain = client.get(link)

    assert ">AL</text>" in drawn.text
    assert (plain.status_code, plain.json["code"]) == (404, "no_picture")


def test_link_of_a_person_who_was_refused_since_shows_the_refusal(
    linked, graph, clock
) -> None:
    """A link is no proof of consent."""
    link = link_of(linked)
    graph.outcomes[ADA] = a_refusal()
    linked.get(f"/profiles/{ADA}", headers=KEY | {"Cache-Control": "no-cache"})
    clock.now += 10
    linked.get(f"/profiles/{ADA}", headers=KEY | {"Cache-Control": "no-cache"})

    answer = linked.get(link)

    assert (answer.status_code, answer.json["code"]) == (403, "consent_required")


def test_without_a_secret_there_are_no_links(new_client, env, graph) -> None:
    """And the parameters mean nothing: the key alone counts."""
    graph.outcomes[ADA] = a_profile()
    link = link_of(new_client(env))
    del env["PROXY_PICTURE_LINK_SECRET_FILE"]
    client = new_client(env)

    assert "picture_link" not in client.get(f"/profiles/{ADA}", headers=KEY).json
    assert client.get(link).json["code"] == "unknown_key"
    assert client.get(link, headers=KEY).status_code == 302
    assert client.get(f"{link}x", headers=KEY).status_code == 302


CHANGES = {
    "another person": lambda link: link.replace(ADA, BEN),
    "another page": lambda link: f"/pages/shop{link}",
    "an unknown page": lambda link: f"/pages/none{link}",
    "no igsid": lambda link: link.replace(ADA, "x"),
    "a later end": lambda link: link.replace("expires=", "expires=9"),
    "an end with a zero": lambda link: link.replace("expires=", "expires=0"),
    "no number": lambda link: link.replace("expires=", "expires=x"),
    "no end": lambda link: link.replace("expires=", "until="),
    "no signature": lambda link: link.partition("&")[0],
    "an empty one": lambda link: link.partition("signature=")[0] + "signature=",
    "a cut one": lambda link: link[:-1],
    "capitals": lambda link: link.rpartition("=")[0] + "=" + link[-64:].upper(),
    "not ASCII": lambda link: link[:-1] + "%C3%A9",
    "not UTF-8": lambda link: link[:-1] + "%FF",
    "two ends": lambda link: link + "&expires=1",
    "two signatures": lambda link: link + "&signature=" + link[-64:],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("key", [{}, KEY], ids=["no key", "a key"])
def test_changed_link_is_a_bad_signature(linked, graph, change, key) -> None:
    """Whatever key is sent with it; Meta is not asked, and no Page is revealed."""
    link = link_of(linked)
    before = graph.calls

    answer = linked.get(change(link), headers=key)

    assert (answer.status_code, answer.json["code"]) == (403, "bad_signature")
    assert "expired" not in answer.json["detail"]
    assert graph.calls == before


@pytest.mark.parametrize(
    "path",
    [
        f"/profiles/{ADA}?",
        f"/profiles?ids={ADA}&",
        f"/v25.0/{ADA}?",
        f"/admin/profiles/{ADA}?",
        f"/profiles/{ADA}/picture?x=1&",
    ],
    ids=["profile", "batch", "node", "admin", "picture"],
)
def test_link_opens_no_other_route(linked, path) -> None:
    """Only the picture, where other parameters have no meaning."""
    link = link_of(linked)

    answer = linked.get(path + link.partition("?")[2])

    assert answer.status_code == (302 if "picture" in path else 401)


@pytest.mark.parametrize("at", [0, 1, 43200, DAY - 1])
def test_link_is_valid_until_the_end_of_the_next_day(linked, clock, at) -> None:
    """UTC: 24 to 48 hours. All links of a day are equal, so that ETags hold."""
    clock.now = MIDNIGHT + at
    first = linked.get(f"/profiles/{ADA}", headers=KEY)
    link = f"/{first.json['picture_link']}"

    clock.now = MIDNIGHT + 2 * DAY - 0.1
    last = linked.get(link)
    clock.now = MIDNIGHT + 2 * DAY
    over = linked.get(link)

    assert f"expires={int(MIDNIGHT) + 2 * DAY}&" in link
    assert last.status_code == 302
    assert (over.status_code, over.json["code"]) == (403, "bad_signature")
    assert "expired" in over.json["detail"]


def test_cached_profile_does_not_outlive_its_link(new_client, env, graph) -> None:
    """However long the TTL is; one without a link is kept for all of it."""
    graph.outcomes[ADA] = a_profile()
    linked = new_client(env | {"PROXY_PROFILE_TTL": "2d"})

    kept = [
        linked.get(f"/profiles/{ADA}{query}", headers=KEY).headers["Cache-Control"]
        for query in ("", "", "?fields=profile_pic", "?fields=name")
    ]

    assert kept[:3] == [f"private, max-age={DAY}"] * 3
    assert kept[3] == f"private, max-age={2 * DAY}"


def test_etag_changes_with_the_link_once_a_day(linked, clock) -> None:
    clock.now = MIDNIGHT + DAY - 1800
    url = f"/profiles/{ADA}"
    tag = linked.get(url, headers=KEY).headers["ETag"]
    unchanged = KEY | {"If-None-Match": tag}

    clock.now += 1799
    same = linked.get(url, headers=unchanged)
    clock.now += 1
    new = linked.get(url, headers=unchanged)

    assert (same.status_code, new.status_code) == (304, 200)
    assert new.headers["ETag"] != tag
    assert new.headers["Cache-Status"].startswith("profile-proxy; hit")


def test_misses_by_links_have_an_allowance_of_their_own(
    linked, store, graph, clock
) -> None:
    """No API key pays for what browsers ask."""
    link = link_of(linked)
    store.delete(f"pp:e:{{default:{ADA}}}")
    store.delete("pp:a:{inbox}")

    answer = linked.get(link)

    assert answer.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"
    assert store.get("pp:a:{picture-links}") == b"1"
    assert store.get("pp:a:{inbox}") is None


@pytest.mark.parametrize("query", ["", "&fallback=initials"])
def test_links_that_have_used_up_their_calls_say_so(linked, store, query) -> None:
    """No API key has: the browser has sent none."""
    link = link_of(linked)
    for _ in range(2):
        store.delete(f"pp:e:{{default:{ADA}}}")
        linked.get(link)
    store.delete(f"pp:e:{{default:{ADA}}}")

    answer = linked.get(link + query)

    assert (answer.status_code, answer.json["code"]) == (429, "too_many_misses")
    assert answer.json["detail"] == (
        "The picture links have used up their calls to Meta for this minute."
        " Meta was not asked."
    )


def test_link_shares_the_initials_of_a_failure(linked, graph, store) -> None:
    """As with a key."""
    link = link_of(linked)
    store.delete(f"pp:e:{{default:{ADA}}}")
    graph.outcomes[ADA] = GraphTimeout()

    assert linked.get(f"{link}&fallback=initials").mimetype == "image/svg+xml"


def test_conditional_request_by_a_link_is_answered_with_the_redirect(linked) -> None:
    """A redirect has no ETag, so nothing can match it."""
    answer = linked.get(link_of(linked), headers={"If-None-Match": "*"})

    assert answer.status_code == 302
    assert answer.headers["Cache-Control"] == "private, max-age=3600"


def test_link_works_where_only_this_machine_may_call(new_client, env, graph) -> None:
    """Without API keys too; a bad one is refused even here."""
    del env["PROXY_API_KEYS_FILE"]
    graph.outcomes[ADA] = a_profile()
    client = new_client(env)
    link = link_of(client)

    assert client.get(link, headers=ELSEWHERE).status_code == 302
    assert client.get(f"{link}0").json["code"] == "bad_signature"
    plain = f"/profiles/{ADA}/picture"
    assert client.get(plain, headers=ELSEWHERE).json["code"] == "not_local"


def test_secret_that_becomes_short_leaves_the_last_good_one(linked, env) -> None:
    """And is a reason of readyz; a new one ends all links."""
    link = link_of(linked)
    file = Path(env["PROXY_PICTURE_LINK_SECRET_FILE"])

    file.write_text("short")
    reasons = linked.get("/readyz").json["reasons"]
    same = linked.get(link)
    file.write_text(SECRET.upper())
    linked.get("/readyz")  # It reads the files again.

    assert "picture_link_secret_file_bad" in reasons
    assert same.status_code == 302
    ended = linked.get(link).json
    assert ended["code"] == "bad_signature"
    assert "older than the secret" in ended["detail"]
    assert linked.get(link_of(linked)).status_code == 302


def test_neither_log_nor_answer_has_secret_or_signature(
    new_client, env, graph, caplog
) -> None:
    """The secret nowhere; the signature only in bodies for callers with a key."""
    caplog.set_level("DEBUG")
    graph.outcomes[ADA] = a_profile()
    client = new_client(env | {"PROXY_ACCESS_LOG": "1"})
    link = link_of(client)
    signature = link[-64:]
    answers = [client.get(link), client.get(f"{link}0"), client.get(f"{link}&x=1")]
    answers.append(client.get(link.replace(ADA, BEN)))

    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "'key': 'picture-links'" in logged
    assert signature not in logged
    for answer in answers:
        assert signature not in answer.text + str(answer.headers)
        assert SECRET not in answer.text + str(answer.headers)
    assert SECRET not in logged + repr(Settings.from_env(env))
