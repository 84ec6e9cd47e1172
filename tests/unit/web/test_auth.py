"""Authentication: the file of keys, and access without one."""

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
def test_key_line_is_a_name_scopes_and_a_digest(
    scopes: str, read_as: frozenset[Scope]
) -> None:
    """A client is found by the digest of its key."""
    keys = read_keys(f"inbox {scopes} {digest_of(INBOX)}\n")

    assert keys == {digest_of(INBOX): Client("inbox", read_as)}


def test_key_digest_is_sha_256() -> None:
    """So ``sha256sum`` can make a line too."""
    assert digest_of("abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_key_file_may_have_comments_and_blanks() -> None:
    """Operators keep notes in such files."""
    keys = read_keys(
        f"# who may call\n\n   \n  # inbox\n\tinbox \t read  {digest_of(INBOX)} \r\n"
    )

    assert list(keys) == [digest_of(INBOX)]


def test_key_name_may_occur_twice() -> None:
    """For rotation: the old key works until its line is removed."""
    keys = read_keys(
        f"inbox read {digest_of('old')}\ninbox read,admin {digest_of('new')}\n"
    )

    assert keys == {
        digest_of("old"): Client("inbox", READ),
        digest_of("new"): Client("inbox", BOTH),
    }


@pytest.mark.parametrize("text", ["", "\n", "# none yet\n"])
def test_key_file_without_keys_is_invalid(text: str) -> None:
    """Truncated before a rewrite, it would lock out all callers."""
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
        f"picture-links read {DIGEST}",
    ],
)
def test_invalid_key_line_is_named_by_number_only(line: str) -> None:
    """It may hold a key in clear text by mistake."""
    good = f"# who may call\nops admin {digest_of(OPS)}\n"

    with pytest.raises(BadFile) as raised:
        read_keys(f"{good}{line}\n")

    message = str(raised.value)
    assert message.startswith("line 3: ")
    assert not any(part in message for part in (INBOX, DIGEST, "inbox", "write"))


def test_traceback_of_an_invalid_key_line_does_not_quote_it() -> None:
    """Python's own error about an enum quotes the unknown scope."""
    with pytest.raises(BadFile) as raised:
        read_keys(f"inbox {INBOX} {DIGEST}")

    shown = "".join(traceback.format_exception(raised.value))
    assert INBOX not in shown


def test_repeated_key_is_invalid() -> None:
    """It would be unclear which scopes it has."""
    with pytest.raises(BadFile) as raised:
        read_keys(f"inbox read {DIGEST}\n\nops admin {DIGEST}\n")

    assert str(raised.value) == "line 3: the same key as in a line above"


@given(st.text(st.characters(exclude_categories=())))
@example(f"inbox read {DIGEST}\u2028ops admin {DIGEST}")
def test_read_keys_raises_only_bad_file(text: str) -> None:
    """Any other exception would stop a service with a mistyped file."""
    try:
        keys = read_keys(text)
    except BadFile:
        return

    assert all(client.scopes for client in keys.values())


@pytest.mark.parametrize("scopes", [READ, ADMIN, BOTH])
def test_new_key_is_valid_with_its_line(scopes: frozenset[Scope]) -> None:
    """The line goes into the file, the key to the caller."""
    key, line = new_key("inbox", scopes)

    assert read_keys(line) == {digest_of(key): Client("inbox", scopes)}


def test_new_key_is_not_in_its_line() -> None:
    """A reader of the file cannot make requests."""
    key, line = new_key("inbox", READ)

    assert key not in line


def test_new_keys_are_unique() -> None:
    """They are random, and too long to guess."""
    keys = {new_key("inbox", READ)[0] for _ in range(100)}

    assert len(keys) == 100
    assert min(map(len, keys)) >= 40


@pytest.mark.parametrize(
    "name", ["", "in box", "inbox\n", "#inbox", "\u00e9", "x" * 65, "picture-links"]
)
def test_new_key_rejects_a_name_that_a_line_cannot_have(name: str) -> None:
    """Otherwise its line would be invalid."""
    with pytest.raises(ValueError):
        new_key(name, READ)


# The authenticator.


def authorize(
    authenticator: Authenticator,
    scope: Scope = Scope.READ,
    *,
    peer: str | None = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
) -> Client:
    """Authorize a request from *peer*, to localhost unless *headers* have a Host."""
    context = Flask("authenticator").test_request_context(
        "/profiles/1254001234567890",
        headers={"Host": "localhost:8080"} | dict(headers or {}),
        environ_overrides={"REMOTE_ADDR": peer} if peer is not None else {},
    )
    return authenticator.authorize(context.request.environ, scope)


def problem(
    authenticator: Authenticator,
    scope: Scope = Scope.READ,
    *,
    peer: str | None = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
) -> Problem:
    """Return the problem that *authenticator* raises."""
    with pytest.raises(Problem) as raised:
        authorize(authenticator, scope, peer=peer, headers=headers)
    return raised.value


def bearing(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {key}"}


LOCKED = Authenticator(lambda: KEYS, allow_anonymous=False)
LOCAL = Authenticator(None, allow_anonymous=False)
OPEN = Authenticator(None, allow_anonymous=True)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_known_key_identifies_the_client(scheme: str) -> None:
    """The case of the scheme is ignored (RFC 9110 §11.1), and so is an extra space."""
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
def test_request_without_a_known_key_is_unknown_key(headers: dict[str, str]) -> None:
    """The problem gives no details on the key. A local caller needs one, too."""
    refused = problem(LOCKED, headers=headers)

    assert refused.code == "unknown_key"
    assert refused.headers == {"WWW-Authenticate": 'Bearer realm="profile-proxy"'}


def test_key_in_the_query_is_ignored() -> None:
    """URLs end up in logs."""
    asked = Flask("authenticator").test_request_context(
        f"/?access_token={INBOX}&key={INBOX}"
    )

    with pytest.raises(Problem) as raised:
        LOCKED.authorize(asked.request.environ, Scope.READ)

    assert raised.value.code == "unknown_key"


@pytest.mark.parametrize(
    ("key", "scope"), [(INBOX, Scope.ADMIN), (OPS, Scope.READ)], ids=["read", "admin"]
)
def test_key_grants_only_its_scopes(key: str, scope: Scope) -> None:
    """``admin`` does not imply ``read``: an operator's key reads no names."""
    refused = problem(LOCKED, scope, headers=bearing(key))

    assert refused.code == "scope_missing"
    assert scope.value in refused.detail


def test_keys_of_one_name_have_separate_scopes() -> None:
    """The scopes of a repeated name do not add up."""
    keys = read_keys(f"a read {digest_of('old')}\na admin {digest_of('new')}")
    authenticator = Authenticator(lambda: keys, allow_anonymous=False)

    assert authorize(authenticator, Scope.READ, headers=bearing("old")).name == "a"
    assert authorize(authenticator, Scope.ADMIN, headers=bearing("new")).name == "a"
    assert (
        problem(authenticator, Scope.ADMIN, headers=bearing("old")).code
        == "scope_missing"
    )


def test_removed_key_is_rejected_at_once() -> None:
    """The authenticator asks for the current keys on every request."""
    now: list[Keys] = [KEYS]
    authenticator = Authenticator(lambda: now[0], allow_anonymous=False)
    before = authorize(authenticator, headers=bearing(INBOX))

    now[0] = {}

    assert before.name == "inbox"
    assert problem(authenticator, headers=bearing(INBOX)).code == "unknown_key"


def test_empty_key_file_rejects_all_callers() -> None:
    """A service that was started with keys never becomes anonymous."""
    authenticator = Authenticator(dict, allow_anonymous=True)

    assert problem(authenticator).code == "unknown_key"


def test_problems_never_repeat_the_key() -> None:
    """It may be valid, but sent to the wrong service."""
    refused = problem(LOCKED, Scope.ADMIN, headers=bearing(INBOX))

    assert INBOX not in f"{refused} {refused!r} {refused.detail} {refused.headers}"


# Without keys.


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.3.4.5", "::1"])
@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8080"]
    + ["[::1]", "[::1]:8080"],
)
def test_local_caller_without_keys_has_all_scopes(
    host: str, peer: str, scope: Scope
) -> None:
    """By one of the three names of this machine, at any port."""
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
def test_other_host_name_without_keys_is_not_local(host: str) -> None:
    """DNS rebinding: the host name of a web page can resolve to this machine."""
    refused = problem(LOCAL, headers={"Host": host})

    assert refused.code == "not_local"


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
def test_forwarded_request_without_keys_is_not_local(name: str, value: str) -> None:
    """A forgotten reverse proxy on this machine forwards requests from elsewhere."""
    refused = problem(LOCAL, headers={name: value})

    assert refused.code == "not_local"


@pytest.mark.parametrize(
    "peer", ["10.0.0.7", "192.0.2.60", "0.0.0.0", "::", "fe80::1", "", "unix:", None]
)
def test_other_peer_without_keys_is_not_local(peer: str | None) -> None:
    """A server may listen elsewhere too; an unknown peer is not this machine."""
    refused = problem(LOCAL, peer=peer)

    assert refused.code == "not_local"


def test_key_without_a_key_file_is_ignored() -> None:
    """No key can be valid then."""
    refused = problem(LOCAL, peer="10.0.0.7", headers=bearing(INBOX))

    assert refused.code == "not_local"


@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.60"])
def test_anonymous_caller_may_read(peer: str) -> None:
    """From anywhere, through any proxy: that is what the setting means."""
    headers = {"Host": "proxy.example", "X-Forwarded-For": "192.0.2.60"}

    client = authorize(OPEN, peer=peer, headers=headers)

    assert client == ANONYMOUS_CLIENT


def test_anonymous_caller_has_no_other_scope() -> None:
    """Not even on this machine."""
    refused = problem(OPEN, Scope.ADMIN)

    assert refused.code == "scope_missing"
