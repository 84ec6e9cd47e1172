"""Redis's errors: what they mean for the service, and their words for the log."""

from __future__ import annotations

import re

import redis

from proxy.domain.failures import StoreUnavailable

FULL, AUTH, SCRIPTS = "store_full", "store_auth", "store_scripts"
"""Why a store that answers does not do what it is told; each needs an operator."""

UNAVAILABLE = StoreUnavailable.code

MAX_QUOTED = 400
"""Characters of an error of the store's that are logged."""

_AUTH_ERRORS = (
    redis.AuthenticationError,
    redis.exceptions.AuthenticationWrongNumberOfArgsError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.NoPermissionError,
)
_NO_SCRIPTS = re.compile(
    "scripting engine|unknown command ['`](eval|script)|'(eval|evalsha|script)", re.I
)
_NOT_PERMITTED = re.compile("user executing the script can't")
"""In a script; Redis 7 has no code for it, as it has for other commands."""

_OUT_OF_MEMORY = re.compile(r"\bOOM\b")

_QUOTED = re.compile("(?<!\\w)(['\"`])(.*?)\\1(?!\\w)")
_OPEN_QUOTE = re.compile("(?<!\\w)['\"`]")
_PLAIN_WORD = re.compile("[A-Za-z|_-]{1,32}")
_LONG_NUMBER = re.compile("[0-9]{5,}")
_COMMAND_FOLLOWS = re.compile(",? with args.*| script: .*", re.DOTALL)


def reason_of(error: redis.RedisError) -> str:
    """Return FULL, AUTH or SCRIPTS, or UNAVAILABLE for any other error.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
    """
    text = str(error)
    if isinstance(error, redis.OutOfMemoryError) or _OUT_OF_MEMORY.search(text):
        return FULL
    if isinstance(error, redis.ResponseError) and _NO_SCRIPTS.search(text):
        return SCRIPTS
    if isinstance(error, _AUTH_ERRORS) or _NOT_PERMITTED.search(text):
        return AUTH
    return UNAVAILABLE


def kind_of(error: redis.RedisError) -> str:
    """Return the class of the system's error, if it is one; texts have the address."""
    system = error.__cause__ or error.__context__
    return type(system if isinstance(system, OSError) else error).__name__


def words_of(error: redis.RedisError) -> str | None:
    """Return Redis's own words, without the command that it repeats.

    A quoted word stays if it is one, such as a setting's name; whatever else is quoted,
    and what follows it, may be a key or a value. None for an error of the client, whose
    text has the address of Redis.
    """
    if not isinstance(error, redis.ResponseError | redis.AuthenticationError):
        return None
    text = _COMMAND_FOLLOWS.sub("", str(error))
    position = 0
    for quoted in _QUOTED.finditer(text):
        if _PLAIN_WORD.fullmatch(quoted[2]) is None:
            break
        position = quoted.end()
    if rest := _OPEN_QUOTE.search(text, position):
        text = text[: rest.start()] + "..."
    return _LONG_NUMBER.sub("...", text)[:MAX_QUOTED]
