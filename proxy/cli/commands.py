"""Commands: run, demo, get, erase, flush, gate, stats, top, key new, config."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from importlib import metadata

import click
import requests

from proxy.cli import top
from proxy.cli.demo import run_demo
from proxy.cli.direct import new_pages
from proxy.cli.gates import gate
from proxy.cli.instance import read_url
from proxy.cli.key_files import key
from proxy.cli.output import (
    AWAY,
    MISUSED,
    REFUSED,
    fail,
    flatten,
    print_values,
    with_exit_code,
)
from proxy.cli.removals import erase, flush
from proxy.config.settings import Settings, show
from proxy.domain.entry import Entry, Freshness
from proxy.domain.failures import LookupFailure, NotCached
from proxy.domain.profile import DEFAULT_PAGE, FIELDS, Igsid, Profile, Refusal
from proxy.embedded import engine
from proxy.live_files import read_settings
from proxy.logs import write_to_stderr
from proxy.lookup.lookup import ProfileLookup
from proxy.server.parent import serve, writable_folder
from proxy.storage.store_url import StoreUrl
from proxy.web import operator_json, problems, representations, request_params

TOP_EVERY, TOP_TIMEOUT = 1.0, 5.0
"""Seconds between two scrapes of an instance by ``top``, and how long one may take."""

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
    writable_folder()
    with engine.start() as embedded:
        serve(replace(settings, store_url=StoreUrl.parse(embedded.url)))


@main.command()
@with_exit_code
def demo() -> None:
    """Try everything on this machine, with a simulated Meta.

    Nothing need be installed or signed up for. Reads no setting but PROXY_LISTEN.
    """
    run_demo()


@main.command()
@click.argument("igsid")
@_page
@click.option(
    "--only-if-cached",
    is_flag=True,
    help="From the store alone: no call to Meta, and nothing is stored.",
)
@click.option("--json", "as_json", is_flag=True, help="The body, as HTTP has it.")
@with_exit_code
def get(igsid: str, page: str | None, only_if_cached: bool, as_json: bool) -> None:
    """Print a person's profile, stored or from Meta.

    Exits with 1 for a refusal, and with --only-if-cached if nothing usable is stored.
    """
    person = request_params.read_igsid(igsid)
    lookup = new_pages(read_settings(os.environ), page).find(page)
    try:
        entry = (
            _stored_entry(lookup, person)
            if only_if_cached
            else lookup.find(person).entry
        )
    except NotCached as failure:
        print_values(problems.failure_body(failure, person), as_json)
        fail(REFUSED, f"No usable entry is stored on the Page {page or DEFAULT_PAGE}.")
    except LookupFailure as failure:
        print_values(problems.failure_body(failure, person), as_json)
        sys.exit(AWAY)
    _print_entry(entry, as_json)


def _stored_entry(lookup: ProfileLookup, person: Igsid) -> Entry:
    """The usable entry in the store: one read, which neither refreshes nor writes.

    Raises:
        NotCached: there is none.
        StoreUnavailable: the store cannot be reached.
    """
    entry = lookup.inspect(person).entry
    if entry is None or entry.freshness(time.time()) is Freshness.EXPIRED:
        raise NotCached()
    return entry


def _print_entry(entry: Entry, as_json: bool) -> None:
    """Print a profile; or a refusal, which exits with 1."""
    match entry.outcome:
        case Profile() as profile:
            body = representations.profile_body(profile, entry.fetched_at, FIELDS)
            print_values(body, as_json)
        case Refusal() as refusal:
            print_values(problems.refusal_body(refusal), as_json)
            sys.exit(REFUSED)


@main.command()
@_page
@click.option("--json", "as_json", is_flag=True, help="One object, for scripts.")
@with_exit_code
def stats(page: str | None, as_json: bool) -> None:
    """Print a Page's gates, used quota and number of entries.

    For all instances on the store of the settings; the counts of one of them are
    in its GET /admin/stats, and in `profile-proxy top`.
    """
    lookup = new_pages(read_settings(os.environ), page).find(page)
    gate, census = lookup.gate_state(), lookup.census()
    values = operator_json.render_gate(gate) | operator_json.render_census(census)
    print_values(values if as_json else flatten(values), as_json)


@main.command("top")
@click.option(
    "--url",
    callback=read_url,
    help="Where it is, if not at PROXY_LISTEN: host:port.",
)
@click.option("--page", help="Only what is one Page's; all Pages' if left out.")
@with_exit_code
def top_(url: str | None, page: str | None) -> None:
    """Show what a running instance does, each second.

    Until Ctrl-C; once if stdout is not a terminal.
    """
    url = url or _url_of(read_settings(os.environ))
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
        fail(
            AWAY,
            f"No instance reports its metrics at {url}: {type(exc).__name__}.",
            "Is it running, and is this its address? --url names another.",
        )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="A list, for scripts.")
@with_exit_code
def config(as_json: bool) -> None:
    """Print every setting, its value and its source.

    Secrets are masked. Then every mistake, which a start would report.
    """
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


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


for command in (erase, flush, gate, key):
    main.add_command(command)


if __name__ == "__main__":
    main()
