"""Commands: run, demo, get, erase, flush, stats, top, key new, config."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from importlib import metadata
from typing import Any

import click
import requests
from flask import Flask

from proxy.assembly import build_pages
from proxy.cli import top
from proxy.cli.demo import run_demo
from proxy.cli.output import (
    AWAY,
    MISUSED,
    REFUSED,
    fail,
    flatten,
    print_values,
    with_exit_code,
)
from proxy.config.readers import read_duration
from proxy.config.settings import Settings, show
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import DEFAULT_PAGE, FIELDS, Profile, Refusal
from proxy.embedded import engine
from proxy.live_files import graph_url_of, read_settings
from proxy.logs import audited, last_four, write_to_stderr
from proxy.lookup.invalidation import What
from proxy.lookup.pages import Pages
from proxy.server.parent import serve
from proxy.storage.store_url import StoreUrl
from proxy.web import auth, operator_json, problems, representations, request_params

TOP_EVERY, TOP_TIMEOUT = 1.0, 5.0
"""Seconds between two scrapes of an instance by ``top``, and how long one may take."""

BY = "command line"
"""The actor in the audit line of a command."""

_page = click.option("--page", help="Which Page, if not that of PROXY_PAGE_TOKEN.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="graph-profile-proxy", prog_name="profile-proxy")
def main() -> None:
    """A caching profile proxy in front of Meta's User Profile API.

    Settings are environment variables, PROXY_<NAME>; `profile-proxy config`
    shows them all. Exit codes: 0 done; 1 a refusal, or a check failed; 2 usage
    or settings; 3 store or Graph away.
    """
    if _is_installed("proxy.py"):
        fail(
            MISUSED,
            "The PyPI package 'proxy.py' is installed here too, and has written over"
            " our package 'proxy'. Use a virtual environment without it.",
        )


@main.command()
@with_exit_code
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
@with_exit_code
def demo() -> None:
    """Run everything on this machine, with nothing installed or signed up for.

    Reads no setting but PROXY_LISTEN.
    """
    run_demo()


@main.command()
@click.argument("igsid")
@_page
@click.option("--json", "as_json", is_flag=True, help="The body, as HTTP has it.")
@with_exit_code
def get(igsid: str, page: str | None, as_json: bool) -> None:
    """Print a person's profile: from the store if usable, otherwise from Meta."""
    person = request_params.read_igsid(igsid)
    lookup = _new_pages(read_settings(os.environ), page).find(page)
    try:
        answer = lookup.find(person)
    except LookupFailure as failure:
        print_values(problems.failure_body(failure, person), as_json)
        sys.exit(AWAY)
    match answer.entry.outcome:
        case Profile() as profile:
            body = representations.profile_body(
                profile, answer.entry.fetched_at, FIELDS
            )
            print_values(body, as_json)
        case Refusal() as refusal:
            print_values(problems.refusal_body(refusal), as_json)
            sys.exit(REFUSED)


@main.command()
@click.argument("igsid")
@_page
@click.option("--json", "as_json", is_flag=True, help="The receipt, for scripts.")
@with_exit_code
def erase(igsid: str, page: str | None, as_json: bool) -> None:
    """Erase what is stored about a person. The next GET asks Meta again."""
    person = request_params.read_igsid(igsid)
    lookup = _new_pages(read_settings(os.environ), page).find(page)
    target = {"page": page or DEFAULT_PAGE, "person": last_four(person)}
    with audited("erase", by=BY, **target) as line:
        receipt = operator_json.erase_receipt(person, lookup.erase(person), time.time())
        line["id"] = receipt["id"]
    print_values(receipt, as_json)


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    try:
        return read_duration(text) if text is not None else None
    except ValueError as exc:
        raise click.BadParameter(f"must be {exc}") from None


@main.command()
@click.argument("what", type=click.Choice([what.value for what in What]))
@click.option(
    "--older-than",
    callback=_seconds,
    help="Only what was fetched so long ago, or longer: 1h.",
)
@click.option("--page", help="Only what is one Page's; all Pages' if left out.")
@click.option("--dry-run", is_flag=True, help="Count, and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="The counts, for scripts.")
@with_exit_code
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
            raise click.UsageError("No terminal to ask on; add --yes or --dry-run.")
        found = pages.flush(What(what), page=page, older_than=older_than, dry_run=True)
        click.confirm(f"Remove {found.matched} entries?", abort=True, err=True)
    options: dict[str, Any] = {"older_than": older_than, "dry_run": dry_run}
    with audited("flush", by=BY, what=what, page=page, **options) as line:
        flushed = pages.flush(What(what), page=page, **options)
        counts = operator_json.render_flushed(flushed)
        line |= counts
    print_values(counts, as_json)


@main.command()
@_page
@click.option("--json", "as_json", is_flag=True, help="One object, for scripts.")
@with_exit_code
def stats(page: str | None, as_json: bool) -> None:
    """Print a Page's gates, how much of its quota is used, and its number of entries.

    For all instances on the store of the settings; the counts of one of them are
    in its GET /admin/stats, and in `profile-proxy top`.
    """
    lookup = _new_pages(read_settings(os.environ), page).find(page)
    gate, census = lookup.gate_state(), lookup.census()
    values = operator_json.render_gate(gate) | operator_json.render_census(census)
    print_values(values if as_json else flatten(values), as_json)


@main.command("top")
@click.option("--url", help="Where it is, if not at PROXY_LISTEN: host:port.")
@click.option("--page", help="Only what is one Page's; all Pages' if left out.")
@with_exit_code
def top_(url: str | None, page: str | None) -> None:
    """Show what a running instance does, each second, until Ctrl-C.

    Once if stdout is not a terminal.
    """
    url = (url or _url_of(read_settings(os.environ))).rstrip("/")
    if "://" not in url:
        url = f"http://{url}"
    session = requests.Session()
    session.trust_env = False
    before, read_at = None, 0.0
    try:
        while True:
            now, at = _scrape(session, url, page), time.monotonic()
            drawn = top.draw(now, before, at - read_at)
            # Without CLEAR if stdout is not a terminal: click leaves it out.
            click.echo(f"{top.CLEAR}profile-proxy at {url}\n\n{drawn}", nl=False)
            if not sys.stdout.isatty():
                return
            before, read_at = now, at
            time.sleep(TOP_EVERY)
    except KeyboardInterrupt:
        return


def _url_of(settings: Settings) -> str:
    """The URL at which this machine reaches an instance of these *settings*."""
    listen = settings.listen
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    return f"http://{listen._replace(host=here)}"


def _scrape(session: requests.Session, url: str, page: str | None) -> top.Reading:
    try:
        response = session.get(f"{url}/metrics", timeout=TOP_TIMEOUT)
        response.raise_for_status()
        return top.read(response.text, page)
    except (requests.RequestException, ValueError) as exc:
        fail(AWAY, f"No instance reports its metrics at {url}: {type(exc).__name__}")


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
        secret, line = auth.new_key(name, frozenset(map(auth.Scope, scopes.split(","))))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="NAME") from None
    if as_json:
        click.echo(json.dumps({"key": secret, "line": line}))
        return
    click.echo("The key, shown this once; give it to the caller:", err=True)
    click.echo(secret, err=True)
    click.echo("Its line, for PROXY_API_KEYS_FILE (on stdout):", err=True)
    click.echo(line)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="A list, for scripts.")
@with_exit_code
def config(as_json: bool) -> None:
    """Print every setting, its value and its source; secrets are masked."""
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
    """Build the Pages of *settings*, and print their store and the *page*'s Graph."""
    write_to_stderr(settings.log_level)
    pages = build_pages(Flask("proxy"), settings)
    url = graph_url_of(settings, page) or settings.graph_url
    graph = f"{url}/{settings.graph_version}"
    click.echo(f"store {settings.store_url.masked}, Graph {graph}", err=True)
    return pages


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
