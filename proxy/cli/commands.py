"""Commands: run, demo, get, erase, flush, stats, top, key new, config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, ParamSpec, TypeVar

import click
import requests
from flask import Flask

from proxy.assembly import build_pages
from proxy.cli import top
from proxy.config.readers import read_duration
from proxy.config.settings import PREFIX, Settings, SettingsError, show
from proxy.domain.failures import LookupFailure, StoreUnavailable
from proxy.domain.profile import DEFAULT_PAGE, FIELDS, Profile, Refusal
from proxy.embedded import engine
from proxy.live_files import graph_url_of, read_settings
from proxy.logs import audited, last_four, write_to_stderr
from proxy.lookup.invalidation import What
from proxy.lookup.pages import Pages, UnknownPage
from proxy.server.parent import serve
from proxy.storage.store_url import StoreUrl
from proxy.web import auth, operator_json, problems, representations, request_params
from proxy.web.problems import Problem

REFUSED, MISUSED, AWAY = 1, 2, 3
"""Exit codes: a refusal, or a check failed; usage or settings; store or Graph away."""

DEMO_TOKEN = "EAADEMOPAGETOKEN"
DEMO_SECRET = "0123456789abcdef0123456789abcdef"
DEMO_WORD = "a-word-of-your-own"
"""No secrets: docs/api.md has them, so that what stands there can be tried here."""
DEMO_SHOP_TOKEN = "IGAADEMOSHOPTOKEN"
DEMO_SHOP_SECRET = "demoshopsecret"
DEMO_PAGES = """\
[pages]

[pages.shop]
token = "{token}"
app_secret = "{secret}"
url = "{url}"
ids = ["17841400000000001"]
"""
"""A second Page, of an Instagram login, which has a secret of its own."""

TOP_EVERY, TOP_WITHIN = 1.0, 5.0
"""Seconds between two looks at an instance, and how long one may take."""

BY = "command line"
"""Who acts, in the audit line of a command."""

_page = click.option("--page", help="Which Page, if not that of PROXY_PAGE_TOKEN.")

P = ParamSpec("P")
T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="graph-profile-proxy", prog_name="profile-proxy")
def main() -> None:
    """A caching profile proxy in front of Meta's User Profile API.

    Settings are environment variables, PROXY_<NAME>; `profile-proxy config`
    shows them all. Exit codes: 0 done; 1 a refusal, or a check failed; 2 usage
    or settings; 3 store or Graph away.
    """
    if _is_installed("proxy.py"):
        _fail(
            MISUSED,
            "The PyPI package 'proxy.py' is installed here too, and has written over"
            " our package 'proxy'. Use a virtual environment without it.",
        )


def _exits(command: Callable[P, T]) -> Callable[P, T]:
    """*command*, with what can go wrong said in a line and told by the exit code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except SettingsError as exc:
            _fail(MISUSED, *exc.mistakes)
        except (Problem, UnknownPage) as exc:
            _fail(MISUSED, str(exc))
        except (engine.EngineMissing, engine.EngineFailed, StoreUnavailable) as exc:
            _fail(AWAY, str(exc))

    return wrapped


@main.command()
@_exits
def run() -> None:
    """Serve, until SIGTERM."""
    settings = read_settings(os.environ)
    write_to_stderr(settings.log_level)
    if not settings.store_url.is_embedded:
        serve(settings)
        return
    with engine.start() as embedded:
        serve(replace(settings, store_url=StoreUrl.parse(embedded.url)))


@main.command()
@_exits
def demo() -> None:
    """The whole thing on this machine, with nothing installed or signed up for.

    Reads no setting but PROXY_LISTEN.
    """
    write_to_stderr("warning")
    settings = Settings.from_env(
        {
            f"{PREFIX}PAGE_TOKEN": DEMO_TOKEN,
            f"{PREFIX}APP_SECRET": DEMO_SECRET,
            f"{PREFIX}WEBHOOK_VERIFY_TOKEN": DEMO_WORD,
            f"{PREFIX}LISTEN": os.environ.get(f"{PREFIX}LISTEN", ""),
            f"{PREFIX}DRAIN_FOR": "0s",
            f"{PREFIX}LOG_LEVEL": "warning",
        }
    )
    webhook_url = f"http://{settings.listen}/webhooks/instagram"
    with (
        engine.start() as embedded,
        _simulated_graph(webhook_url) as graph_url,
        TemporaryDirectory(prefix="profile-proxy-demo-") as folder,
    ):
        pages = Path(folder, "pages.toml")
        told = {"token": DEMO_SHOP_TOKEN, "secret": DEMO_SHOP_SECRET, "url": graph_url}
        pages.write_text(DEMO_PAGES.format(**told))
        settings = replace(
            settings,
            store_url=StoreUrl.parse(embedded.url),
            graph_url=graph_url,
            pages_file=pages,
        )
        serve(settings, lambda: click.echo(_what_to_try(settings, graph_url, pages)))


@main.command()
@click.argument("igsid")
@_page
@click.option("--json", "as_json", is_flag=True, help="The body, as HTTP has it.")
@_exits
def get(igsid: str, page: str | None, as_json: bool) -> None:
    """Who is this person? From the store if it may be used, else from Meta."""
    person = request_params.read_igsid(igsid)
    lookup = _new_pages(read_settings(os.environ), page).find(page)
    try:
        answer = lookup.find(person)
    except LookupFailure as failure:
        _show(problems.failure_body(failure, person), as_json)
        sys.exit(AWAY)
    match answer.entry.outcome:
        case Profile() as profile:
            body = representations.profile_body(
                profile, answer.entry.fetched_at, FIELDS
            )
            _show(body, as_json)
        case Refusal() as refusal:
            _show(problems.refusal_body(refusal), as_json)
            sys.exit(REFUSED)


@main.command()
@click.argument("igsid")
@_page
@click.option("--json", "as_json", is_flag=True, help="The receipt, for scripts.")
@_exits
def erase(igsid: str, page: str | None, as_json: bool) -> None:
    """Erase what is stored about a person. The next GET asks Meta again."""
    person = request_params.read_igsid(igsid)
    lookup = _new_pages(read_settings(os.environ), page).find(page)
    whose = {"page": page or DEFAULT_PAGE, "person": last_four(person)}
    with audited("erase", by=BY, **whose) as line:
        receipt = operator_json.erase_receipt(person, lookup.erase(person), time.time())
        line["id"] = receipt["id"]
    _show(receipt, as_json)


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    try:
        return read_duration(text) if text is not None else None
    except ValueError as exc:
        raise click.BadParameter(f"must be {exc}") from None


@main.command()
@click.argument("what", type=click.Choice([what.value for what in What]))
@click.option(
    "--older-than", callback=_seconds, help="Only what was fetched so long ago: 1h."
)
@click.option("--page", help="Only what is one Page's; all Pages' if left out.")
@click.option("--dry-run", is_flag=True, help="Count, and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="The counts, for scripts.")
@_exits
def flush(
    what: str,
    older_than: float | None,
    page: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove entries: all, profiles, refusals, or the refusals for one reason."""
    pages = _new_pages(read_settings(os.environ))
    if not dry_run and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("Nobody is there to ask; add --yes or --dry-run.")
        found = pages.flush(What(what), page=page, older_than=older_than, dry_run=True)
        click.confirm(f"Remove {found.matched} entries?", abort=True, err=True)
    asked: dict[str, Any] = {"older_than": older_than, "dry_run": dry_run}
    with audited("flush", by=BY, what=what, page=page, **asked) as line:
        done = pages.flush(What(what), page=page, **asked)
        counts = operator_json.render_flushed(done)
        line |= counts
    _show(counts, as_json)


@main.command()
@_page
@click.option("--json", "as_json", is_flag=True, help="One object, for scripts.")
@_exits
def stats(page: str | None, as_json: bool) -> None:
    """A Page's gates, how much of its quota is used, and how many entries it has.

    Of all instances on the store of the settings; what one of them has counted
    is in its GET /admin/stats, and in `profile-proxy top`.
    """
    lookup = _new_pages(read_settings(os.environ), page).find(page)
    gate, census = lookup.gate_state(), lookup.census()
    told = operator_json.render_gate(gate) | operator_json.render_census(census)
    _show(told if as_json else _flat(told), as_json)


@main.command("top")
@click.option("--url", help="Where it is, if not at PROXY_LISTEN: host:port.")
@click.option("--page", help="Only what is one Page's; all Pages' if left out.")
@_exits
def top_(url: str | None, page: str | None) -> None:
    """What a running instance does, each second, until Ctrl-C.

    Once, where stdout is no terminal.
    """
    url = (url or _url_of(read_settings(os.environ))).rstrip("/")
    if "://" not in url:
        url = f"http://{url}"
    session = requests.Session()
    session.trust_env = False
    before, looked_at = None, 0.0
    try:
        while True:
            now, at = _read_at(session, url, page), time.monotonic()
            drawn = top.draw(now, before, at - looked_at)
            # Without CLEAR where stdout is no terminal: click leaves it out.
            click.echo(f"{top.CLEAR}profile-proxy at {url}\n\n{drawn}", nl=False)
            if not sys.stdout.isatty():
                return
            before, looked_at = now, at
            time.sleep(TOP_EVERY)
    except KeyboardInterrupt:
        return


def _url_of(settings: Settings) -> str:
    """Where this machine reaches an instance of these *settings*."""
    listen = settings.listen
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    return f"http://{listen._replace(host=here)}"


def _read_at(session: requests.Session, url: str, page: str | None) -> top.Reading:
    try:
        answer = session.get(f"{url}/metrics", timeout=TOP_WITHIN)
        answer.raise_for_status()
        return top.read(answer.text, page)
    except (requests.RequestException, ValueError) as exc:
        _fail(AWAY, f"No instance tells its metrics at {url}: {type(exc).__name__}")


def _flat(values: dict[str, Any], within: str = "") -> dict[str, Any]:
    """*values*, with what is in an object of them by a dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{within}{name}.")
        else:
            flat[within + name] = value
    return flat


@main.group()
def key() -> None:
    """API keys."""


@key.command("new")
@click.argument("name")
@click.option(
    "--scopes",
    type=click.Choice(["read", "admin", "read,admin"]),
    default="read",
    show_default=True,
    help="What the key may do; admin does not imply read.",
)
@click.option("--json", "as_json", is_flag=True, help="Both, for scripts.")
def key_new(name: str, scopes: str, as_json: bool) -> None:
    """Make a key, and print its line for the file of keys.

    The line alone goes to stdout, so that it can be appended to the file. The key
    itself is shown on stderr, this once, and is kept nowhere.
    """
    try:
        new, line = auth.new_key(name, frozenset(map(auth.Scope, scopes.split(","))))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="NAME") from None
    if as_json:
        click.echo(json.dumps({"key": new, "line": line}))
        return
    click.echo("The key, shown this once; give it to the caller:", err=True)
    click.echo(new, err=True)
    click.echo("Its line, for PROXY_API_KEYS_FILE (on stdout):", err=True)
    click.echo(line)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="A list, for scripts.")
@_exits
def config(as_json: bool) -> None:
    """Every setting, its value and where it came from; secrets are masked."""
    shown = show(os.environ)
    if as_json:
        click.echo(json.dumps([row._asdict() for row in shown], indent=2))
    else:
        name_width = max(len(row.name) for row in shown)
        value_width = max(len(row.value) for row in shown)
        for row in shown:
            name, value = row.name.ljust(name_width), row.value.ljust(value_width)
            click.echo(f"{name}  {value}  {row.source}".rstrip())
    read_settings(os.environ)


def _new_pages(settings: Settings, page: str | None = None) -> Pages:
    """What answers, on the store and the *page*'s Graph of the settings; says which."""
    write_to_stderr(settings.log_level)
    pages = build_pages(Flask("proxy"), settings)
    url = graph_url_of(settings, page) or settings.graph_url
    graph = f"{url}/{settings.graph_version}"
    click.echo(f"store {settings.store_url.masked}, Graph {graph}", err=True)
    return pages


def _show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(values))
        return
    width = max(map(len, values))
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        click.echo(f"{name.ljust(width)}  {text}")


def _fail(code: int, *lines: str) -> NoReturn:
    for line in lines:
        click.echo(line, err=True)
    sys.exit(code)


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


@contextmanager
def _simulated_graph(webhook_url: str) -> Iterator[str]:
    """A simulated Graph API as a child, which ends with us in any way; its URL."""
    command = [sys.executable, "-m", "proxy.simulator", "--exit-with-stdin"]
    with subprocess.Popen(
        [
            *(*command, "--listen", "127.0.0.1:0", "--token", DEMO_TOKEN),
            *("--app-secret", DEMO_SECRET, "--webhook-url", webhook_url),
            *("--page", f"shop={DEMO_SHOP_TOKEN}:{DEMO_SHOP_SECRET}"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as simulator:
        assert simulator.stdin and simulator.stdout
        # Forked workers would hold the pipe open beyond our own end.
        os.register_at_fork(after_in_child=simulator.stdin.close)
        try:
            yield json.loads(simulator.stdout.readline())["url"]
        finally:
            simulator.terminate()


def _what_to_try(settings: Settings, graph_url: str, pages: Path) -> str:
    base = f"http://{settings.listen}"
    handshake = f"hub.mode=subscribe&hub.verify_token={DEMO_WORD}&hub.challenge=1158"
    return f"""\
profile-proxy demo: the proxy at {base}, a simulated Meta at {graph_url}

Try, in another terminal:
  curl -i {base}/profiles/1254001000000001   Ada: a miss, and then a hit
  curl -i -H 'Cache-Control: no-cache' {base}/profiles/1254001000000001   asked anew
  curl -i {base}/profiles/1254001000000002   Ben has not consented: 403
  curl -X POST {graph_url}/_sim/people/1254001000000002/writes   Ben writes; ask again
  curl -i {base}/profiles/1254001000000003   Cleo is gone: 404
  curl -i {base}/profiles/1254001000000004   Dov has blocked us: 403
  curl -i {base}/profiles/1254001000000005   Eve has an emoji in her name
  curl -i {base}/profiles/1254001000000006   Finn has no picture and no name
  curl -i {base}/profiles/1254001000000007   Gus's picture is about to die
  curl -i '{base}/profiles?ids=1254001000000001,1254001000000002'   two at once
  curl -i {base}/profiles/1254001000000001/picture   where Ada's picture is: 302
  curl -i '{base}/profiles/1254001000000004/picture?fallback=initials'   for an <img>
  curl -i '{base}/v25.0/1254001000000001?fields=name,profile_pic'   as Meta answers it
  curl -i {base}/pages/shop/profiles/1254101000000001   Ada, as another Page knows her
  curl -i {base}/pages/shop/profiles/1254001000000001   not by the first one's id: 404
  curl -i '{base}/webhooks/instagram?{handshake}'   Meta's handshake
  curl -i {base}/admin/profiles/1254001000000001   why this answer
  curl -i -X POST {base}/admin/profiles/1254001000000001/refresh   fetch Ada now
  curl -i -X DELETE {base}/admin/profiles/1254001000000001   erase Ada
  curl -i -H 'Content-Type: application/json' -d '{{"what": "all"}}' {base}/admin/flush
  curl -i {base}/admin/stats   what was saved
  curl -i {base}/readyz   how it is
  curl {graph_url}/_sim/calls   what Meta was asked

And the commands: stats, top, get, erase, flush
  export PROXY_LISTEN={settings.listen} PROXY_STORE_URL={settings.store_url.text}
  export PROXY_GRAPH_URL={graph_url} PROXY_PAGE_TOKEN={DEMO_TOKEN}
  export PROXY_APP_SECRET={DEMO_SECRET} PROXY_PAGES_FILE={pages}
  {sys.argv[0]} stats
  {sys.argv[0]} stats --page shop

Take a Page out of {pages}, and it is gone in 2 s.

Ctrl-C ends it, and leaves nothing behind.
"""


if __name__ == "__main__":
    main()
