"""The Graph-compatible endpoint: what existing Graph API clients receive."""

from __future__ import annotations

import hashlib

import pytest

from proxy.app import create_app
from proxy.config.settings import Settings
from proxy.domain.failures import (
    FAILURES,
    GraphTimeout,
    GraphUnavailable,
    NotCached,
    Overloaded,
    PermissionMissing,
    StoreUnavailable,
    Throttled,
    TokenRejected,
    TooManyMisses,
)
from proxy.domain.profile import FIELDS, GraphError, Reason
from proxy.web import graph_api
from tests.helpers.builders import ADA, HOUR, NOW, a_profile, a_refusal, picture_url

NODE = f"/v25.0/{ADA}"
READER, OPERATOR = "pp_reader", "pp_operator"


@pytest.fixture
def guarded(graph, clock, store, background, tmp_path):
    """A service with two keys, of a reader and of an operator."""
    keys = tmp_path / "api_keys"
    keys.write_text(
        "".join(
            f"{name} {scope} {hashlib.sha256(key.encode()).hexdigest()}\n"
            for name, scope, key in (
                ("inbox", "read", READER),
                ("ops", "admin", OPERATOR),
            )
        )
    )
    settings = {"PROXY_PAGE_TOKEN": "EAACANARY", "PROXY_API_KEYS_FILE": str(keys)}
    app = create_app(
        Settings.from_env(settings),
        client=store,
        graph=graph,
        submit=background.submit,
        now=clock,
    )
    return app.test_client()


def test_graph_profile_is_a_node_as_meta_returns_it(client, graph) -> None:
    """The requested fields and ``id``, without fields of ours."""
    graph.outcomes[ADA] = a_profile(name="Ada Lovelace", follower_count=1815)

    answer = client.get(f"{NODE}?fields=name,follower_count")

    assert answer.status_code == 200
    assert answer.json == {"name": "Ada Lovelace", "follower_count": 1815, "id": ADA}
    assert answer.content_type == "application/json"


def test_graph_endpoint_shares_entries_with_profiles(client, graph, clock) -> None:
    """A person cached by one endpoint is a hit at the other, with the same headers."""
    graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}")
    clock.now += 100

    answer = client.get(NODE, headers={"X-Request-ID": "mine"})

    assert graph.calls == 1
    assert answer.headers["Cache-Status"] == "profile-proxy; hit; ttl=3500"
    assert answer.headers["Age"] == "100"
    assert answer.headers["Cache-Control"] == "private, max-age=3600"
    assert answer.headers["X-Request-ID"] == "mine"
    tag = {"If-None-Match": answer.headers["ETag"]}
    assert client.get(NODE, headers=tag).status_code == 304


def test_graph_endpoint_follows_cache_control(client, graph, clock) -> None:
    """As ``/profiles`` does: no call if forbidden, a call if forced."""
    graph.outcomes[ADA] = a_profile(name="Before")
    not_kept = client.get(NODE, headers={"Cache-Control": "only-if-cached"})
    assert (not_kept.status_code, not_kept.json["error"]["code"]) == (503, 2)
    assert not_kept.headers["Cache-Status"] == "profile-proxy; detail=not_cached"
    assert graph.calls == 0

    client.get(NODE)
    graph.outcomes[ADA] = a_profile(name="After")
    clock.now += 60
    young = client.get(NODE, headers={"Cache-Control": "max-age=60"})
    force = client.get(NODE, headers={"Cache-Control": "no-cache"})

    assert (young.json["name"], force.json["name"]) == ("Before", "After")
    assert force.headers["Cache-Status"] == "profile-proxy; fwd=request; stored"
    assert graph.calls == 2


@pytest.mark.parametrize(
    "path",
    [
        *(f"/{version}/{ADA}" for version in ("v2.8", "v25.0", "v99.99", "v25", "v0")),
        f"/{ADA}",
        f"/{ADA}/",
        f"/v25.0/{ADA}/",
        f"/v25/{ADA}/",
        f"/pages/default/{ADA}",
        f"/pages/default/{ADA}/",
        f"/pages/default/v25/{ADA}/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_graph_endpoint_accepts_any_version_or_none(
    client, graph, method, path
) -> None:
    """The version that Meta is called with is a setting; nor need a slash be absent."""
    graph.outcomes[ADA] = a_profile(name="Ada")

    answer = client.open(path, method=method)

    assert answer.status_code == 200
    assert method == "HEAD" or answer.json == {"name": "Ada", "id": ADA}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", {"id", "name"}),
        ("?fields=", {"id", "name"}),
        ("?fields=id", {"id"}),
        ("?fields=username,", {"id", "username"}),
        ("?fields=username,%20name", {"id", "username", "name"}),
        ("?fields=name,name,id", {"id", "name"}),
        ("?fields=name&fields=username", {"id", "name", "username"}),
        ("?fields=%20,", {"id", "name"}),
        (f"?fields={','.join(FIELDS)}", {"id", *FIELDS}),
    ],
)
def test_graph_fields_are_read_as_meta_does(client, graph, query, names) -> None:
    """``id`` is always included; without ``fields``, the name."""
    graph.outcomes[ADA] = a_profile()

    assert set(client.get(f"{NODE}{query}").json) == names


def test_graph_unset_field_is_null_or_left_out_as_at_meta(client, graph) -> None:
    """Meta documents null for two fields; clients do not expect it for others."""
    unset = dict.fromkeys([*FIELDS, "picture_expires_at"])
    graph.outcomes[ADA] = a_profile(**unset)

    answer = client.get(f"{NODE}?fields={','.join(FIELDS)}")

    assert answer.json == {"id": ADA, "name": None, "profile_pic": None}


def test_graph_field_may_be_false_or_zero(client, graph) -> None:
    """They are values, unlike null."""
    graph.outcomes[ADA] = a_profile(is_verified_user=False, follower_count=0)

    answer = client.get(f"{NODE}?fields=is_verified_user,follower_count")

    assert answer.json == {"is_verified_user": False, "follower_count": 0, "id": ADA}


def test_graph_profile_never_has_an_expired_picture(client, graph, clock) -> None:
    """As at every other endpoint."""
    link = picture_url(NOW + 3 * HOUR)
    graph.outcomes[ADA] = a_profile(profile_pic=link, picture_expires_at=NOW + 3 * HOUR)
    client.get(NODE)
    clock.now += 3 * HOUR + 1

    assert client.get(f"{NODE}?fields=profile_pic").json == {
        "profile_pic": None,
        "id": ADA,
    }


def test_graph_refusal_keeps_metas_error(client, graph) -> None:
    """Code, subcode, status and trace id, in an envelope without fields of ours."""
    said = GraphError(100, 33, "AbCd")
    graph.outcomes[ADA] = a_refusal(reason=Reason.UNAVAILABLE, said=said)

    first, second = client.get(NODE), client.get(NODE)

    error = first.json["error"]
    assert first.status_code == 400
    assert first.json == second.json == {"error": error}
    assert error.pop("message").startswith(
        f"Unsupported get request. Object with ID '{ADA}' does not exist"
    )
    assert error == {
        "type": "GraphMethodException",
        "code": 100,
        "error_subcode": 33,
        "fbtrace_id": "AbCd",
    }
    assert second.headers["Cache-Status"] == (
        "profile-proxy; hit; ttl=600; detail=unavailable"
    )
    assert second.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (TokenRejected(GraphError(190, 463, "tr")), 503, 2),
        (GraphTimeout(), 503, 2),
        (GraphUnavailable(GraphError(1, None, None)), 503, 2),
        (Overloaded(retry_after=1.0), 503, 2),
        (Throttled(GraphError(80002, None, None), retry_after=120.0), 503, 4),
        (TooManyMisses(retry_after=7.0), 429, 4),
    ],
)
def test_graph_failure_is_transient_with_retry_after(failure, status, code) -> None:
    """Never about a token: a client must not take ours for its own."""
    answer = graph_api.render_failure(failure)

    error = answer.json["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["is_transient"] is True
    assert "error_subcode" not in error
    assert "token" not in error["message"].lower()
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Cache-Control"] == "no-store"


def test_graph_failure_of_a_lookup_is_in_metas_envelope(client, graph) -> None:
    """It is not cached."""
    graph.outcomes[ADA] = TokenRejected(GraphError(190, 463, "tr"))

    answer = client.get(NODE)

    assert (answer.status_code, answer.json["error"]["code"]) == (503, 2)
    assert answer.headers["Cache-Status"] == (
        "profile-proxy; fwd=uri-miss; detail=token_rejected"
    )


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (GraphError(200, 2534041, "tr"), 200),
        (GraphError(230, None, "tr"), 230),
        (GraphError(100, 33, "tr"), 100),
        (GraphError(0, None, None), 0),
        (None, 10),
    ],
)
def test_graph_missing_permission_keeps_metas_code(client, graph, said, code) -> None:
    """Without the subcode: 100/33 would be about a person."""
    graph.outcomes[ADA] = PermissionMissing(said)

    answer = client.get(NODE)

    error = answer.json["error"]
    assert (answer.status_code, error["code"]) == (403, code)
    assert error["message"].startswith(f"(#{code}) Requires a permission")
    assert not {"error_subcode", "is_transient"} & set(error)
    assert answer.headers["Cache-Status"] == (
        "profile-proxy; fwd=uri-miss; detail=permission_missing"
    )


def test_graph_failure_codes_have_messages() -> None:
    """A code without one would be a 500."""
    codes = {code for _, code in graph_api.FAILURES.values()} | {graph_api.TRANSIENT[1]}

    assert codes == {*graph_api.MESSAGES, None}


def test_failures_that_callers_should_retry_have_no_row() -> None:
    """Add a new failure here, or give it a row."""
    transient = {
        TokenRejected,  # A caller must not take the Page token for its own key.
        GraphTimeout,
        GraphUnavailable,
        NotCached,
        Overloaded,
    }

    assert set(FAILURES) - set(graph_api.FAILURES) == transient


@pytest.mark.parametrize(
    "sent",
    [
        {"query_string": {"access_token": READER}},
        {"headers": {"Authorization": f"Bearer {READER}"}},
        {"headers": {"Authorization": f"OAuth {READER}"}},
        {"headers": {"Authorization": f"oauth  {READER} "}},
        {
            "query_string": {"access_token": READER},
            "headers": {"Authorization": "Basic aW5ib3g6eA=="},
        },
    ],
)
def test_graph_access_token_is_the_api_key(guarded, graph, sent) -> None:
    """In the query, as a bearer token or after OAuth, as Graph API clients send it."""
    graph.outcomes[ADA] = a_profile()

    assert guarded.get(NODE, **sent).status_code == 200
    assert guarded.get(f"/{ADA}", **sent).status_code == 200


@pytest.mark.parametrize(
    "query", [{}, {"access_token": ""}, {"access_token": "EAA\u00e9"}]
)
def test_graph_code_190_means_an_unknown_key(guarded, graph, query) -> None:
    """With 401, and without a call to Meta."""
    answer = guarded.get(NODE, query_string=query)

    assert (answer.status_code, answer.json["error"]["code"]) == (401, 190)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert graph.calls == 0


def test_graph_key_without_read_scope_is_code_10(guarded, graph) -> None:
    """The key is known, so it is not 190."""
    answer = guarded.get(NODE, query_string={"access_token": OPERATOR})

    assert (answer.status_code, answer.json["error"]["code"]) == (403, 10)
    assert graph.calls == 0


def test_key_in_the_query_is_accepted_only_by_the_graph_endpoint(
    guarded, graph
) -> None:
    """Queries end up in logs; only Graph API clients have no other choice."""
    answer = guarded.get(f"/profiles/{ADA}", query_string={"access_token": READER})

    assert answer.status_code == 401


def test_scheme_oauth_is_accepted_only_by_the_graph_endpoint(guarded, graph) -> None:
    """It is Meta's word for a bearer token."""
    old = {"Authorization": f"OAuth {READER}"}

    assert guarded.get(f"/profiles/{ADA}", headers=old).status_code == 401
    assert graph.calls == 0


@pytest.mark.parametrize("path", [NODE, f"/{ADA}", f"/pages/default/{ADA}/"])
@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"headers": {"Host": "evil.example"}}, 403, 10),
        ({"headers": {"Via": "1.1 x"}}, 403, 10),
        ({"method": "POST"}, 404, 100),
        ({"method": "POST", "headers": {"Transfer-Encoding": "chunked"}}, 404, 100),
        ({"method": "POST", "headers": {"Content-Length": "9" * 20}}, 404, 100),
        ({"method": "GET", "headers": {"Transfer-Encoding": "chunked"}}, 411, 100),
    ],
)
def test_graph_refusal_to_a_caller_is_in_metas_envelope(
    client, graph, path, request_, status, code
) -> None:
    """Wherever in the service it is raised: clients take any other body for a node."""
    answer = client.open(path, **request_)

    assert (answer.status_code, answer.json["error"]["code"]) == (status, code)
    assert answer.mimetype == "application/json"
    assert graph.calls == 0


def test_graph_store_failure_is_transient() -> None:
    """No lookup raises it today."""
    answer = graph_api.render_store_unavailable(StoreUnavailable())

    assert (answer.status_code, answer.json["error"]["code"]) == (503, 2)
    assert answer.json["error"]["is_transient"] is True
    assert answer.headers["Retry-After"] == "1"


def test_graph_call_counts_against_the_callers_allowance(guarded, graph, store) -> None:
    """By the name of the key, as at ``/profiles``."""
    graph.outcomes[ADA] = a_profile()

    guarded.get(NODE, query_string={"access_token": READER})

    assert store.get("pp:a:{inbox}") == b"1"


def test_graph_endpoint_without_keys_ignores_the_token(client, graph) -> None:
    """Every caller on this machine may read, as at the other endpoints."""
    graph.outcomes[ADA] = a_profile()

    assert client.get(NODE).status_code == 200
    assert client.get(f"{NODE}?access_token=EAAWHATEVER").status_code == 200
    stranger = client.get(NODE, headers={"Host": "evil.example"})
    assert (stranger.status_code, stranger.json["error"]["code"]) == (403, 10)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/v25.0/me", "igsid"),
        ("/v25.0/1234", "igsid"),
        ("/1234", "igsid"),
        (f"/{'1' * 26}", "igsid"),
        (f"/{ADA}?fields=bio", "(bio)"),
        (f"{NODE}?fields=name,birthday", "(birthday)"),
        (f"{NODE}?fields=name{{first}}", "(name{first})"),
        (f"{NODE}?fields[]=username", "fields=name&fields=username"),
    ],
)
def test_graph_invalid_request_is_code_100(client, graph, path, word) -> None:
    """As at Meta, and without a call to Meta."""
    answer = client.get(path)

    error = answer.json["error"]
    assert (answer.status_code, error["code"]) == (400, 100)
    assert word in error["message"]
    assert graph.calls == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/v25.0/?ids={ADA}"),
        ("GET", f"/v25.0?ids={ADA}"),
        ("GET", f"{NODE}?ids={ADA}"),
        ("GET", f"{NODE}/picture"),
        ("GET", "/v25.0"),
        ("GET", "/v25"),
        ("GET", "/me"),
        ("GET", "/pages/default/me/accounts"),
        ("GET", "/v1.x/1"),
        ("GET", "/v25.0.1/12345"),
        ("GET", "/12x"),
        ("GET", f"/{ADA}x"),
        ("GET", f"/{ADA}?ids={ADA}"),
        ("GET", f"/{ADA}/conversations"),
        ("GET", f"/{ADA}//"),
        ("GET", f"{NODE}/conversations/"),
        ("GET", f"/v25.0//{ADA}"),
        ("GET", "/pages/default/v25.0"),
        ("GET", f"/pages/default/{ADA}/messages"),
        ("GET", "/pages/none/v25.0/12345/x"),
        ("POST", f"/{ADA}"),
        ("POST", f"/{ADA}/messages"),
        ("PUT", f"/pages/default/{ADA}"),
        ("OPTIONS", f"/{ADA}/x"),
        ("POST", NODE),
        ("POST", "/v25.0/"),
        ("DELETE", NODE),
        ("OPTIONS", NODE),
    ],
)
def test_graph_unsupported_request_is_404_in_metas_envelope(
    client, graph, method, path
) -> None:
    """So that a Graph API client can read it."""
    answer = client.open(path, method=method)

    assert (answer.status_code, answer.json["error"]["code"]) == (404, 100)
    assert graph.calls == 0


@pytest.mark.parametrize("path", ["/version/12345", "/v/12345", "/mex", "/"])
def test_path_without_a_version_or_an_id_is_a_problem(client, path) -> None:
    """As everywhere else."""
    assert client.get(path).json["code"] == "unknown_path"


def test_graph_bug_is_in_metas_envelope(client, graph, caplog) -> None:
    """The log has it, but not the query."""
    graph.outcomes[ADA] = 1 / 1  # type: ignore[assignment]  # not an outcome

    answer = client.get(f"{NODE}?access_token=EAACANARYKEY")

    assert (answer.status_code, answer.json["error"]["code"]) == (500, 1)
    assert "bug" in caplog.text
    assert "EAACANARYKEY" not in caplog.text


def test_graph_head_has_no_body(client, graph) -> None:
    """Flask supports HEAD for every GET."""
    graph.outcomes[ADA] = a_profile()

    answer = client.head(NODE)

    assert (answer.status_code, answer.data) == (200, b"")
