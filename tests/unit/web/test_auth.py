"""Who may call: the file of keys, and whom we serve without one."""

import traceback
from collections.abc import Mapping

import pytest
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.watched_file import BadFile
from proxy.web.auth import (
    ANONYMOUS_CLIENT,
    LOCAL_CLIENT,
    Authenticator,
    Client,
    Keys,
    Scope,
    digest_of,
    new_key,
    read_keys,
)
from proxy.web.problems import Problem

READ, ADMIN = frozenset({Scope.READ}), frozenset({Scope.ADMIN})
BOTH = READ | ADMIN

INBOX, OPS = "pp_key-of-the-inbox", "pp_key-of-the-operator"
KEYS: Keys = {
    digest_of(INBOX): Client("inbox", READ),
    digest_of(OPS): Client("ops", ADMIN),
}


# The file of keys.


@pytest.mark.parametrize(
    ("scopes", "read_as"),
    [("read", READ), ("admin", ADMIN), ("read,admin", BOTH), ("admin,read", BOTH)],
)
def test_a_line_is_a_name_its_scopes_and_a_digest(
    scopes: str, read_as: frozenset[Scope]
) -> None:
    """A caller is found by the digest of the key it shows."""
    keys = read_keys(f"inbox {scopes} {digest_of(INBOX)}\n")

    assert keys == {digest_of(INBOX): Client("inbox", read_as)}


def test_a_digest_is_the_sha_256_of_the_key() -> None:
    """So that a line can be made with ``sha256sum`` too."""
    assert digest_of("abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_blank_lines_comments_and_spaces_do_not_count() -> None:
    """People keep notes in such files."""
    keys = read_keys(
        f"# who may call\n\n   \n  # inbox\n\tinbox \t read  {digest_of(INBOX)} \r\n"
    )

    assert list(keys) == [digest_of(INBOX)]


def test_a_name_may_stand_twice() -> None:
    """For rotation: the old key works until its line goes."""
    keys = read_keys(
        f"inbox read {digest_of('old')}\ninbox read,admin {digest_of('new')}\n"
    )

    assert keys == {
        digest_of("old"): Client("inbox", READ),
        digest_of("new"): Client("inbox", BOTH),
    }


@pytest.mark.parametrize("text", ["", "\n", "# nobody yet\n"])
def test_a_file_without_a_key_is_no_good(text: str) -> None:
    """Truncated by whoever is about to write it, it would lock everybody out."""
    with pytest.raises(BadFile, match="holds no key"):
        read_keys(text)


DIGEST = digest_of(INBOX)


@pytest.mark.parametrize(
    "line",
    [
        "inbox",
        "inbox read",
        f"inbox {DIGEST}",
        f"in box read {DIGEST}",
        f"inbox read, admin {DIGEST}",
        f"inbox read {DIGEST} # ours",
        f"inbox write {DIGEST}",
        f"inbox Read {DIGEST}",
        f"inbox read; {DIGEST}",
        f"inbox , {DIGEST}",
        f"inbox read, {DIGEST}",
        f"inbox read,write {DIGEST}",
        f"inbox read {DIGEST.upper()}",
        f"inbox read {DIGEST[:-1]}",
        f"inbox read {DIGEST}0",
        f"inbox read {'g' * 64}",
        f"inbox read {INBOX}",
        f"\u0456nbox read {DIGEST}",
        f"in/box read {DIGEST}",
        f"{'x' * 65} read {DIGEST}",
    ],
)
def test_a_bad_line_is_named_by_its_number_alone(line: str) -> None:
    """It may hold a key in clear, put there by mistake."""
    good = f"# who may call\nops admin {digest_of(OPS)}\n"

    with pytest.raises(BadFile) as raised:
        read_keys(f"{good}{line}\n")

    told = str(raised.value)
    assert told.startswith("line 3: ")
    assert not any(part in told for part in (INBOX, DIGEST, "inbox", "write"))


def test_the_traceback_of_a_bad_line_does_not_quote_it() -> None:
    """An unknown scope is quoted by Python's own words about enums."""
    with pytest.raises(BadFile) as raised:
        read_keys(f"inbox {INBOX} {DIGEST}")

    shown = "".join(traceback.format_exception(raised.value))
    assert INBOX not in shown


def test_the_same_key_twice_is_a_mistake() -> None:
    """Nobody could tell whose scopes hold."""
    with pytest.raises(BadFile) as raised:
        read_keys(f"inbox read {DIGEST}\n\nops admin {DIGEST}\n")

    assert str(raised.value) == "line 3: the same key as in a line above"


@given(st.text(st.characters(exclude_categories=())))
@example(f"inbox read {DIGEST}\u2028ops admin {DIGEST}")
def test_any_text_is_keys_or_a_bad_file(text: str) -> None:
    """Anything else would take down a service whose file was mistyped."""
    try:
        keys = read_keys(text)
    except BadFile:
        return

    assert all(client.scopes for client in keys.values())


@pytest.mark.parametrize("scopes", [READ, ADMIN, BOTH])
def test_a_new_key_opens_the_door_with_its_line(scopes: frozenset[Scope]) -> None:
    """The line goes into the file, the key to whoever calls."""
    key, line = new_key("inbox", scopes)

    assert read_keys(line) == {digest_of(key): Client("inbox", scopes)}


def test_the_line_of_a_new_key_does_not_hold_the_key() -> None:
    """Who reads the file cannot call."""
    key, line = new_key("inbox", READ)

    assert key not in line


def test_no_two_new_keys_are_the_same() -> None:
    """They are random, and long enough not to be guessed."""
    keys = {new_key("inbox", READ)[0] for _ in range(100)}

    assert len(keys) == 100
    assert min(map(len, keys)) >= 40


@pytest.mark.parametrize(
    "name", ["", "in box", "inbox\n", "#inbox", "\u00e9", "x" * 65]
)
def test_a_new_key_has_a_name_that_a_line_can_have(name: str) -> None:
    """Else the line would be a bad one."""
    with pytest.raises(ValueError):
        new_key(name, READ)


# The door.


def authorize(
    door: Authenticator,
    scope: Scope = Scope.READ,
    *,
    peer: str | None = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
) -> Client:
    """Ask *door* about a request from *peer*, to localhost unless *headers* say."""
    context = Flask("door").test_request_context(
        "/profiles/1254001234567890",
        headers={"Host": "localhost:8080"} | dict(headers or {}),
        environ_overrides={"REMOTE_ADDR": peer} if peer is not None else {},
    )
    return door.authorize(context.request.environ, scope)


def problem(
    door: Authenticator,
    scope: Scope = Scope.READ,
    *,
    peer: str | None = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
) -> Problem:
    """The problem with which *door* is shut."""
    with pytest.raises(Problem) as raised:
        authorize(door, scope, peer=peer, headers=headers)
    return raised.value


def bearing(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {key}"}


LOCKED = Authenticator(lambda: KEYS, allow_anonymous=False)
LOCAL = Authenticator(None, allow_anonymous=False)
OPEN = Authenticator(None, allow_anonymous=True)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_a_known_key_says_who_calls(scheme: str) -> None:
    """The scheme's case does not matter (RFC 9110 11.1), nor does a space more."""
    client = authorize(LOCKED, headers=bearing(INBOX, scheme))

    assert client == Client("inbox", READ)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": INBOX},
        bearing("pp_some-other-key"),
        bearing(INBOX[:-1]),
        bearing(f"{INBOX} {INBOX}"),
        bearing(f'"{INBOX}"'),
        bearing(digest_of(INBOX)),
        bearing("inbox"),
        bearing("\u00e9"),
        bearing(INBOX, "Basic"),
        bearing(INBOX, "Token"),
        {"X-API-Key": INBOX},
    ],
    ids=str,
)
def test_who_shows_no_known_key_is_told_how_to(headers: dict[str, str]) -> None:
    """Without a word on what was wrong with it. A local caller is no better."""
    shut = problem(LOCKED, headers=headers)

    assert shut.code == "unknown_key"
    assert shut.headers == {"WWW-Authenticate": 'Bearer realm="profile-proxy"'}


def test_a_key_in_the_address_opens_nothing() -> None:
    """Addresses end up in logs."""
    asked = Flask("door").test_request_context(f"/?access_token={INBOX}&key={INBOX}")

    with pytest.raises(Problem) as raised:
        LOCKED.authorize(asked.request.environ, Scope.READ)

    assert raised.value.code == "unknown_key"


@pytest.mark.parametrize(
    ("key", "scope"), [(INBOX, Scope.ADMIN), (OPS, Scope.READ)], ids=["read", "admin"]
)
def test_a_key_opens_only_what_its_scopes_say(key: str, scope: Scope) -> None:
    """``admin`` does not imply ``read``: an operator's key reads no names."""
    shut = problem(LOCKED, scope, headers=bearing(key))

    assert shut.code == "scope_missing"
    assert scope.value in shut.detail


def test_two_keys_of_one_name_have_each_their_own_scopes() -> None:
    """A name that stands twice does not add up."""
    keys = read_keys(f"a read {digest_of('old')}\na admin {digest_of('new')}")
    door = Authenticator(lambda: keys, allow_anonymous=False)

    assert authorize(door, Scope.READ, headers=bearing("old")).name == "a"
    assert authorize(door, Scope.ADMIN, headers=bearing("new")).name == "a"
    assert problem(door, Scope.ADMIN, headers=bearing("old")).code == "scope_missing"


def test_the_keys_of_the_moment_count() -> None:
    """A key that was taken out of the file opens nothing any more."""
    now: list[Keys] = [KEYS]
    door = Authenticator(lambda: now[0], allow_anonymous=False)
    before = authorize(door, headers=bearing(INBOX))

    now[0] = {}

    assert before.name == "inbox"
    assert problem(door, headers=bearing(INBOX)).code == "unknown_key"


def test_a_file_without_keys_lets_nobody_in() -> None:
    """A service that was started with keys never becomes anonymous."""
    door = Authenticator(dict, allow_anonymous=True)

    assert problem(door).code == "unknown_key"


def test_no_problem_repeats_the_key() -> None:
    """It may be a good one, sent to the wrong place."""
    shut = problem(LOCKED, Scope.ADMIN, headers=bearing(INBOX))

    assert INBOX not in f"{shut} {shut!r} {shut.detail} {shut.headers}"


# Without keys.


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.3.4.5", "::1"])
@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8080"]
    + ["[::1]", "[::1]:8080"],
)
def test_without_keys_this_machine_may_do_everything(
    host: str, peer: str, scope: Scope
) -> None:
    """By one of its three own names, at whatever port."""
    client = authorize(LOCAL, scope, peer=peer, headers={"Host": host})

    assert client == LOCAL_CLIENT


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "localhost.",
        "localhost@evil.example",
        "evil.example:80:localhost",
        "localhost:8080:80",
        "localhost:",
        "127.0.0.1.evil.example",
        "127.0.0.2",
        "127.1",
        "2130706433",
        "0.0.0.0:8080",
        "::1",
        "[::1",
        "[::]",
        "[::ffff:127.0.0.1]",
        "10.0.0.7",
    ],
)
def test_without_keys_another_host_name_is_not_served(host: str) -> None:
    """DNS rebinding: a page's own name can be made to point here."""
    shut = problem(LOCAL, headers={"Host": host})

    assert shut.code == "not_local"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Forwarded", "for=192.0.2.60;proto=http"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Forwarded-For", "192.0.2.60"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-For", ""),
        ("x-forwarded-for", "127.0.0.1"),
        ("Via", "1.1 gateway"),
    ],
)
def test_without_keys_what_was_passed_on_is_not_served(name: str, value: str) -> None:
    """A forgotten reverse proxy on this machine speaks for strangers."""
    shut = problem(LOCAL, headers={name: value})

    assert shut.code == "not_local"


@pytest.mark.parametrize(
    "peer", ["10.0.0.7", "192.0.2.60", "0.0.0.0", "::", "fe80::1", "", "unix:", None]
)
def test_without_keys_another_machine_is_not_served(peer: str | None) -> None:
    """Should a server listen elsewhere. Who cannot be told is not this machine."""
    shut = problem(LOCAL, peer=peer)

    assert shut.code == "not_local"


def test_without_keys_a_key_is_no_way_in() -> None:
    """There is none that it could be."""
    shut = problem(LOCAL, peer="10.0.0.7", headers=bearing(INBOX))

    assert shut.code == "not_local"


@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.60"])
def test_anonymous_callers_may_read(peer: str) -> None:
    """From anywhere, through any proxy: that is what the setting says."""
    headers = {"Host": "proxy.example", "X-Forwarded-For": "192.0.2.60"}

    client = authorize(OPEN, peer=peer, headers=headers)

    assert client == ANONYMOUS_CLIENT


def test_anonymous_callers_may_do_nothing_else() -> None:
    """Not even from this machine."""
    shut = problem(OPEN, Scope.ADMIN)

    assert shut.code == "scope_missing"
