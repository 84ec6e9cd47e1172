"""The profile call of the simulated Meta, compared with recorded replies."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.simulator import errors
from proxy.simulator.graph import answer, read_call
from proxy.simulator.people import FIELDS
from proxy.simulator.pictures import Album
from proxy.simulator.replies import Reply
from proxy.simulator.scenario import Rules, Throttle, TokenDeath, Usage
from proxy.simulator.scripts import Script, read_script

RECORDED = Path(__file__).parents[2] / "fixtures" / "graph"
NOW = 1_795_000_000.0
TOKEN = "EAATEST"
RULES = Rules(TOKEN)
ADA, BEN, CLEO, DOV, EVE, FINN, GUS, HANA, IVO, JO = (
    str(1254001000000000 + number) for number in range(1, 11)
)


def ask(
    igsid: str,
    *,
    fields: str = ",".join(FIELDS[1:]),
    path: str = "/v25.0/{}",
    query: str = "",
    authorization: str | None = f"Bearer {TOKEN}",
    rules: Rules = RULES,
    script: Script | None = None,
    nth: int = 1,
    this_hour: int = 1,
) -> Reply:
    """Call about *igsid*, with valid values unless one is overridden."""
    target = f"{path.format(igsid)}?fields={fields}{query}"
    return answer(
        read_call("GET", target, authorization),
        rules,
        Album("http://127.0.0.1:9100"),
        script=script,
        nth=nth,
        this_hour=this_hour,
        trace="AbC/+d",
        now=NOW,
    )


def json_of(reply: Reply) -> Any:
    return json.loads(reply.body)


def recorded(name: str) -> tuple[int, dict[str, Any]]:
    """Return the status of a recorded failure, and its error without the trace."""
    record = json.loads((RECORDED / f"{name}.json").read_text())
    return record["status"], without_trace(record["body"])


def without_trace(body: dict[str, Any]) -> dict[str, Any]:
    error = dict(body["error"])
    error.pop("fbtrace_id", None)
    return error


def proof(token: str, secret: str) -> str:
    return hmac.new(secret.encode(), token.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        (ask(BEN), "profile-consent-required-403"),
        (ask(CLEO), "profile-no-matching-instagram-user-400"),
        (ask(IVO), "transient-2-service-unavailable-503"),
        (ask(ADA, authorization="Bearer EAAWRONG"), "token-invalid-190-no-subcode"),
        (ask("me", authorization=None), "no-active-token-2500"),
        (ask(ADA, query="&ids=1,2"), "ids-parameter-retired-500-100"),
        (ask(ADA, rules=Rules(TOKEN, "s")), "appsecret-proof-missing-100"),
        (
            ask(ADA, query="&appsecret_proof=00", rules=Rules(TOKEN, "s")),
            "appsecret-proof-invalid",
        ),
        (
            ask(ADA, rules=Rules(TOKEN, death=TokenDeath(460, NOW))),
            "token-password-changed-190-460",
        ),
        (
            ask(ADA, rules=Rules(TOKEN, death=TokenDeath(458, NOW))),
            "token-app-not-authorized-190-458",
        ),
        (ask(ADA, rules=Rules(TOKEN, throttle=Throttle(4, 0))), "rate-limit-app-4"),
        (ask(ADA, rules=Rules(TOKEN, throttle=Throttle(17, 3))), "rate-limit-user-17"),
        (ask(ADA, rules=Rules(TOKEN, throttle=Throttle(32, 3))), "rate-limit-page-32"),
        (
            ask(ADA, rules=Rules(TOKEN, throttle=Throttle(80001, 19))),
            "rate-limit-buc-pages-80001",
        ),
    ],
)
def test_failure_equals_the_recorded_reply(reply: Reply, name: str) -> None:
    """Status, message, type, code and subcode, field by field."""
    assert (reply.status, without_trace(json_of(reply))) == recorded(name)


@pytest.mark.parametrize(
    ("code", "subcode", "name"),
    [
        (3, None, "capability-3"),
        (5, None, "unauthorized-source-ip-5"),
        (10, None, "permission-10"),
        (10, 1893063, "page-restricted-10-1893063"),
        (100, 2018001, "no-matching-user-found-100-2018001"),
        (2018001, None, "no-matching-user-found-2018001-own-code"),
        (2018218, None, "no-profile-available-2018218-own-code"),
        (2018247, None, "insufficient-permission-2018247-own-code"),
        (200, 1545041, "blocked-200-1545041"),
        (2, 2018344, "privacy-terms-not-accepted-2-2018344"),
        (100, 2018218, "messenger-no-profile-100-2018218"),
        (100, 2018247, "messenger-insufficient-permission-100-2018247"),
        (100, 2534014, "no-matching-user-100-2534014"),
        (200, None, "profile-advanced-access-missing-403"),
        (200, 2534041, "account-owner-disabled-dm-access-200-2534041"),
        (230, None, "profile-consent-required-403"),
    ],
)
def test_scripted_code_gets_the_recorded_text(
    code: int, subcode: int | None, name: str
) -> None:
    """A test gives the code, and gets the text that Meta sends with it."""
    script = read_script({"error": {"code": code, "subcode": subcode}}, ADA, NOW)

    reply = ask(ADA, script=script)

    assert (reply.status, without_trace(json_of(reply))) == recorded(name)


def test_hidden_object_is_named_in_the_recorded_text() -> None:
    """100/33 quotes the id that was asked for."""
    status, error = recorded("object-does-not-exist-100-33")
    error["message"] = error["message"].replace("'xxx'", f"'{JO}'")

    reply = ask(JO)

    assert (reply.status, without_trace(json_of(reply))) == (status, error)


def test_unknown_field_fails_the_whole_call() -> None:
    """The recorded message, and the kind of node behind it."""
    status, error = recorded("nonexisting-field-profile-pic-100")

    reply = ask(ADA, rules=Rules(TOKEN, missing_fields=frozenset({"profile_pic"})))

    now = without_trace(json_of(reply))
    assert now.pop("message").startswith(error.pop("message"))
    assert (reply.status, now) == (status, error)


def test_expired_session_names_the_time_of_its_end() -> None:
    """190/463, both times in Pacific time, as in the recorded reply."""
    rules = Rules(TOKEN, death=TokenDeath(463, 1_781_352_000.0))

    error = json_of(ask(ADA, rules=rules))["error"]

    _, expected = recorded("token-session-expired-190-463")
    assert error["error_subcode"] == expected["error_subcode"]
    assert error["message"].split(". ")[0] == expected["message"].split(". ")[0]


def test_instagram_token_cannot_be_parsed() -> None:
    """The only 190 known to come with 401."""
    reply = ask(ADA, authorization="Bearer IGAAxyz")

    assert reply.status == 401
    assert json_of(reply)["error"]["message"] == errors.TOKEN_UNREADABLE.message


def test_call_without_a_token_is_104() -> None:
    """About any person."""
    reply = ask(BEN, authorization=None)

    assert (reply.status, json_of(reply)["error"]["code"]) == (400, 104)


def test_token_may_be_in_the_query() -> None:
    """Meta accepts it in either place."""
    reply = ask(ADA, authorization=None, query=f"&access_token={TOKEN}")

    assert reply.status == 200


def test_call_with_a_valid_proof_succeeds() -> None:
    """An HMAC of the token under the app's secret, in lower-case hex."""
    query = f"&appsecret_proof={proof(TOKEN, 'secret')}"

    right = ask(ADA, query=query, rules=Rules(TOKEN, "secret"))
    upper = ask(ADA, query=query.upper(), rules=Rules(TOKEN, "secret"))

    assert (right.status, upper.status) == (200, 400)


def test_reply_has_the_requested_fields_in_their_order() -> None:
    """And the id, at the end, though it was not requested."""
    reply = ask(ADA, fields="username,%20name")

    assert list(json_of(reply)) == ["username", "name", "id"]


@pytest.mark.parametrize("fields", ["", "%20,"])
def test_reply_without_fields_has_name_and_id(fields: str) -> None:
    """Also without a version in the path."""
    reply = ask(ADA, fields=fields, path="/{}")

    assert json_of(reply) == {"name": "Ada Lovelace", "id": ADA}
    assert reply.headers["facebook-api-version"] == "v25.0"


def test_requested_version_answers() -> None:
    """And the header names it."""
    reply = ask(ADA, path="/v21.0/{}")

    assert reply.headers["facebook-api-version"] == "v21.0"


def test_fields_that_finn_has_not_set_are_null_or_absent() -> None:
    """Meta does both."""
    profile = json_of(ask(FINN))

    assert profile["name"] is None and profile["profile_pic"] is None
    assert "follower_count" not in profile and "is_verified_user" not in profile


def test_body_is_ascii_with_escaped_slashes() -> None:
    """An emoji becomes a surrogate pair, and every slash has a backslash."""
    body = ask(EVE).body

    assert body.isascii()
    assert b"\\ud83c\\udf38" in body and b"http:\\/\\/127.0.0.1" in body
    assert b"/" not in body.replace(b"\\/", b"")


def test_every_second_call_about_ivo_succeeds() -> None:
    """The first, third, ... get a transient error."""
    statuses = [ask(IVO, nth=nth).status for nth in (1, 2, 3, 4)]

    assert statuses == [503, 200, 503, 200]


def test_person_of_the_crowd_is_always_the_same() -> None:
    """Made from the id alone, and as big as a real profile."""
    first, again = ask("1254002000000042"), ask("1254002000000042")

    assert first.body == again.body != ask("1254002000000043").body
    assert 350 < len(first.body) < 450


@pytest.mark.parametrize(
    ("igsid", "code"), [("1254003000000001", 100), ("123456789", 803), ("ada", 803)]
)
def test_other_ids_are_unknown(igsid: str, code: int) -> None:
    """An id of the right shape is 100/33, anything else an alias."""
    reply = ask(igsid)

    assert (reply.status, json_of(reply)["error"]["code"]) == (400, code)


def test_failure_has_a_challenge() -> None:
    """It repeats the message, and no character of it can break the header."""
    script = read_script({"error": {"code": 3, "message": "a\nb \u05d0"}}, ADA, NOW)

    reply = ask(ADA, script=script)

    challenge = 'OAuth "Facebook Platform" "insufficient_scope" "ab ?"'
    assert reply.headers["www-authenticate"] == challenge


def test_usage_grows_with_the_calls() -> None:
    """In percent of an hour's quota, and with no wait."""
    few, many = ask(ADA, this_hour=1), ask(ADA, this_hour=15_000)

    assert business_cases(few)[0]["call_count"] == 0
    assert business_cases(many)[0]["call_count"] == 75
    assert business_cases(many)[0]["estimated_time_to_regain_access"] == 0


def test_usage_can_be_fixed() -> None:
    """Whatever the number of calls was."""
    reply = ask(ADA, rules=Rules(TOKEN, usage=Usage(97, 5)))

    assert business_cases(reply)[0]["call_count"] == 97
    assert business_cases(reply)[0]["estimated_time_to_regain_access"] == 5


def test_throttle_names_the_wait_in_minutes() -> None:
    """And it applies to every profile call, also about a refused person."""
    reply = ask(BEN, rules=Rules(TOKEN, throttle=Throttle(80002, 3)))

    assert json_of(reply)["error"]["code"] == 80002
    assert business_cases(reply)[0]["estimated_time_to_regain_access"] == 3
    assert business_cases(reply)[0]["call_count"] >= 100


def test_app_limit_gives_no_hint_of_the_wait() -> None:
    """As in the recorded reply: ``x-app-usage`` only."""
    reply = ask(ADA, rules=Rules(TOKEN, throttle=Throttle(4, 0)))

    assert "x-business-use-case-usage" not in reply.headers
    assert json.loads(reply.headers["x-app-usage"])["call_count"] == 100


def test_repr_of_a_call_shows_no_token() -> None:
    """Not even in an assertion that fails."""
    call = read_call("GET", f"/{ADA}?access_token={TOKEN}", f"Bearer {TOKEN}")

    assert TOKEN not in repr(call) + repr(RULES)
    assert (call.token, call.authorization) == (TOKEN, "bearer")


def business_cases(reply: Reply) -> list[dict[str, Any]]:
    header = json.loads(reply.headers["x-business-use-case-usage"])
    return [case for cases in header.values() for case in cases]
