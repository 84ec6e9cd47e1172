"""The profile call: Meta's answer under the current rules."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from urllib.parse import parse_qsl, unquote

from proxy.simulator import errors, people
from proxy.simulator.errors import GraphError
from proxy.simulator.people import Person
from proxy.simulator.pictures import Album
from proxy.simulator.replies import JSON_TYPE, Reply, meta_json
from proxy.simulator.scenario import Rules
from proxy.simulator.scripts import Script
from proxy.simulator.usage import usage_headers

NEWEST_VERSION = "v25.0"

DEFAULT_FIELDS = ["name"]
"""The fields besides ``id`` if the ``fields`` parameter is left out or empty."""

_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]{1,2}")
_PREFIX = re.compile(r"\(#[0-9]+\) ")


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it was received; ``repr`` shows no token.

    ``edge`` is the rest of the path after the node; ``bearer`` is the token of the
    ``Authorization`` header.
    """

    method: str
    version: str
    node: str
    edge: str
    query: Mapping[str, str]
    bearer: str | None

    def __repr__(self) -> str:
        return f"Call({self.method} /{self.version}/{self.node}{self.edge})"

    @property
    def token(self) -> str | None:
        return self.bearer or self.query.get("access_token") or None

    @property
    def authorization(self) -> str:
        if self.bearer:
            return "bearer"
        return "query" if self.query.get("access_token") else "none"

    @property
    def fields(self) -> list[str]:
        names = self.query.get("fields", "").split(",")
        return [name.strip() for name in names if name.strip()]


def read_call(method: str, target: str, authorization: str | None) -> Call:
    """Read a request line's *target* and the ``Authorization`` header.

    As with Meta, the version may be omitted; then the newest answers.
    """
    location, _, query = target.partition("?")
    path = [unquote(part) for part in location.split("/") if part]
    version = path.pop(0) if path and _VERSION.fullmatch(path[0]) else NEWEST_VERSION
    node, *edges = path or [""]
    scheme, _, token = (authorization or "").partition(" ")
    return Call(
        method=method,
        version=version,
        node=node,
        edge="".join(f"/{edge}" for edge in edges),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        bearer=token.strip() if scheme.lower() == "bearer" else None,
    )


def answer(
    call: Call,
    rules: Rules,
    album: Album,
    *,
    script: Script | None,
    nth: int,
    this_hour: int,
    trace: str,
    now: float,
) -> Reply:
    """Return Meta's answer to *call*, the *nth* one about this person.

    The token is checked first, then the throttle, and only then the person. A
    script replaces the person, so it has no effect on a dead token.
    """
    headers = _headers(call, trace, now)
    refusal = _refuse_caller(call, rules, now)
    if refusal is not None:
        return _error_reply(refusal, rules, headers, trace)
    headers |= usage_headers(rules, this_hour)
    throttled = rules.throttle and errors.throttled(rules.throttle.code)
    if throttled:
        return _error_reply(throttled, rules, headers, trace)
    if "ids" in call.query:
        return _error_reply(errors.IDS_RETIRED, rules, headers, trace)
    if script is not None and script.content is not None:
        return _apply_script(Reply(200, headers, script.content), script)
    result = _describe(call, rules, album, script=script, nth=nth, now=now)
    if isinstance(result, GraphError):
        return _apply_script(_error_reply(result, rules, headers, trace), script)
    return _apply_script(Reply(200, headers, meta_json(result)), script)


def _in_instagram_words(error: GraphError) -> GraphError:
    """Return *error* as graph.instagram.com does: another type, no code in the text."""
    message = _PREFIX.sub("", error.message)
    return replace(error, message=message, type="IGApiException")


def _refuse_caller(call: Call, rules: Rules, now: float) -> GraphError | None:
    token = call.token
    if token is None:
        is_me = call.node == "me"
        return errors.ACTIVE_TOKEN_MISSING if is_me else errors.TOKEN_MISSING
    if not hmac.compare_digest(token.encode(), rules.token.encode()):
        is_login = token.startswith("IGA")
        return errors.TOKEN_UNREADABLE if is_login else errors.TOKEN_INVALID
    if rules.death is not None:
        return errors.dead_token(rules.death.subcode, rules.death.died_at, now)
    return _refuse_proof(call, token, rules.app_secret)


def _refuse_proof(call: Call, token: str, secret: str | None) -> GraphError | None:
    if secret is None:
        return None
    proof = call.query.get("appsecret_proof")
    if not proof:
        return errors.PROOF_MISSING
    expected = hmac.new(secret.encode(), token.encode(), hashlib.sha256).hexdigest()
    if hmac.compare_digest(proof.encode(), expected.encode()):
        return None
    return errors.PROOF_INVALID


def _describe(
    call: Call,
    rules: Rules,
    album: Album,
    *,
    script: Script | None,
    nth: int,
    now: float,
) -> GraphError | dict[str, object]:
    if script is not None and script.error is not None:
        return script.error
    overlay = None if script is None else script.profile
    person = _person(call, rules, nth)
    if overlay is not None:
        person = people.generate(call.node)
    if isinstance(person, GraphError):
        return person
    fields = call.fields or DEFAULT_FIELDS
    for name in fields:
        if name not in people.FIELDS or name in rules.missing_fields:
            return errors.no_such_field(name)
    profile = {"id": person.igsid, **person.profile, **(overlay or {})}
    wanted = dict.fromkeys([*fields, "id"])
    if "profile_pic" in wanted and person.picture_life and "profile_pic" not in profile:
        profile["profile_pic"] = album.url(person.igsid, now, person.picture_life)
    return {name: profile[name] for name in wanted if name in profile}


def _person(call: Call, rules: Rules, nth: int) -> GraphError | Person:
    if call.method not in ("GET", "HEAD") or not call.node:
        return errors.no_such_object(call.node, call.method.lower())
    if not people.is_id_like(call.node):
        return errors.no_such_alias(call.node)
    if call.edge:
        return errors.unknown_path(call.edge)
    person = people.find(call.node, rules.number)
    if person is None or person.refusal == people.HIDDEN:
        return errors.no_such_object(call.node)
    if person.is_flaky and nth % 2:
        return errors.UNAVAILABLE_FOR_NOW
    return person.refusal or person


def _headers(call: Call, trace: str, now: float) -> dict[str, str]:
    return {
        "content-type": JSON_TYPE,
        "facebook-api-version": call.version,
        "date": formatdate(now, usegmt=True),
        "vary": "Origin, Accept-Encoding",
        "cache-control": "private, no-cache, no-store, must-revalidate",
        "pragma": "no-cache",
        "expires": "Sat, 01 Jan 2000 00:00:00 GMT",
        "access-control-allow-origin": "*",
        "x-fb-request-id": trace,
        "x-fb-trace-id": trace,
        "x-fb-rev": "1030894213",
    }


def _error_reply(
    error: GraphError, rules: Rules, headers: Mapping[str, str], trace: str
) -> Reply:
    if rules.has_instagram_login:
        error = _in_instagram_words(error)
    message = error.message.encode("latin-1", "replace").decode("latin-1")
    kind = _CHALLENGES.get(error.code, "invalid_request")
    challenge = f'OAuth "Facebook Platform" "{kind}" "{_one_line(message)}"'
    body = meta_json(error.envelope(trace))
    return Reply(error.status, {**headers, "www-authenticate": challenge}, body)


def _one_line(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


_CHALLENGES = dict.fromkeys([102, 104, 190, 2500], "invalid_token") | dict.fromkeys(
    [3, 10, *range(200, 300)], "insufficient_scope"
)


def _apply_script(reply: Reply, script: Script | None) -> Reply:
    """Return *reply* with the status and headers of the script."""
    if script is None:
        return reply
    headers = {**reply.headers, **script.headers}
    kept = {name: text for name, text in headers.items() if text is not None}
    status = reply.status if script.status is None else script.status
    return Reply(status, kept, reply.body)
