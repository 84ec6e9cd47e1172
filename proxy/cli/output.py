"""What commands print: values, mistakes, and the exit code that goes with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from proxy.config.settings import SettingsError
from proxy.domain.failures import StoreUnavailable
from proxy.embedded.engine import EngineFailed, EngineMissing
from proxy.lookup.pages import UnknownPage
from proxy.observability.metrics import GilDisabled
from proxy.web.problems import Problem

REFUSED, MISUSED, AWAY = 1, 2, 3
"""Exit codes: a refusal, or a check failed; usage or settings; store or Graph away."""

STORE_HINT = (
    "Is it up, and is it the store of the service? `profile-proxy config` shows"
    " PROXY_STORE_URL."
)
"""Follows the error of a store that cannot be reached."""

P = ParamSpec("P")
T = TypeVar("T")


class CommandFailed(Exception):
    """A command has failed: *lines* say how and what to do, *code* is its exit code."""

    def __init__(self, code: int, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.code = code
        self.lines = lines


def with_exit_code(command: Callable[P, T]) -> Callable[P, T]:
    """Wrap *command* to print an expected error as a line, and exit with its code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except SettingsError as exc:
            fail(MISUSED, *exc.mistakes)
        except (Problem, UnknownPage, GilDisabled) as exc:
            fail(MISUSED, str(exc))
        except CommandFailed as exc:
            fail(exc.code, *exc.lines)
        except StoreUnavailable as exc:
            fail(AWAY, str(exc), STORE_HINT)
        except (EngineMissing, EngineFailed) as exc:
            fail(AWAY, str(exc))

    return wrapped


def fail(code: int, *lines: str) -> NoReturn:
    """Print *lines* on stderr and exit with *code*."""
    for line in lines:
        click.echo(line, err=True)
    sys.exit(code)


def print_values(values: dict[str, Any], as_json: bool) -> None:
    """Print *values* as one line each, or as one object of JSON."""
    if as_json:
        click.echo(json.dumps(values))
        return
    width = max(map(len, values))
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        click.echo(f"{name.ljust(width)}  {text}")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """*values* without nested objects, whose values get dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
