"""Commands that remove: erase and flush, on the store or through an instance."""

from __future__ import annotations

import os
import pwd
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import click

from proxy.cli.direct import new_pages, place_of
from proxy.cli.instance import ApiKey, Instance, instance_options, key_of
from proxy.cli.output import (
    MISUSED,
    REFUSED,
    CommandFailed,
    print_values,
    with_exit_code,
)
from proxy.config.readers import read_duration
from proxy.domain.failures import StoreUnavailable
from proxy.domain.profile import DEFAULT_PAGE, Igsid
from proxy.live_files import read_settings
from proxy.logs import audited, last_four
from proxy.lookup.invalidation import What
from proxy.web import operator_json, request_params
from proxy.web.problems import Problem

MOST_IDS = 10_000
"""One takes half a second, until no process has a copy."""


class Remover(Protocol):
    """Removes what is stored.

    For people to read, *where* says from where, *place* also under which key prefix,
    if this command knows, and *advice* what to do if nothing was stored.
    """

    where: str
    place: str
    advice: str

    def erase(self, igsid: Igsid, page: str | None) -> dict[str, Any]: ...

    def flush(self, order: dict[str, Any]) -> dict[str, Any]: ...


class _Direct:
    """Removes from the store of the settings. The audit lines go to stderr."""

    advice = "compare these with its settings, or use --url to act through it."

    def __init__(self, page: str | None) -> None:
        settings = read_settings(os.environ)
        self._pages = new_pages(settings, page)
        self._key_prefix = settings.key_prefix
        self._by = acting_user()
        self.where = f"store {settings.store_url.masked}"
        self.place = place_of(settings)

    def erase(self, igsid: Igsid, page: str | None) -> dict[str, Any]:
        name = page or DEFAULT_PAGE
        target = {"page": name, "person": last_four(igsid)}
        with audited("erase", by=self._by, **target) as line:
            lookup = self._pages.find(page)
            receipt = operator_json.erase_receipt(
                igsid,
                lookup.erase(igsid),
                time.time(),
                page=name,
                key_prefix=self._key_prefix,
                by=self._by,
            )
            line |= operator_json.audit_fields(receipt)
        return receipt

    def flush(self, order: dict[str, Any]) -> dict[str, Any]:
        what = What(order["what"])
        options = {name: order[name] for name in ("page", "older_than", "dry_run")}
        with audited("flush", by=self._by, what=what.value, **options) as line:
            counts = operator_json.render_flushed(self._pages.flush(what, **options))
            line |= counts
        return counts


class _Through:
    """Removes through a running instance, whose log has the audit lines."""

    advice = "check the id: a person has another one on each Page (--page)."

    def __init__(self, url: str, key: ApiKey | None) -> None:
        self._instance = Instance(url, key_of(key))
        self.where = self.place = f"the instance at {url}"
        click.echo(self.where, err=True)

    def erase(self, igsid: Igsid, page: str | None) -> dict[str, Any]:
        return self._instance.erase(igsid, page)

    def flush(self, order: dict[str, Any]) -> dict[str, Any]:
        return self._instance.flush(order)


def acting_user() -> str:
    """``user@host`` of this command. No API key has such a name."""
    user = os.getuid()
    try:
        return f"{pwd.getpwuid(user).pw_name}@{socket.gethostname()}"
    except KeyError:  # A container's user often has no name.
        return f"{user}@{socket.gethostname()}"


def _new_remover(url: str | None, key: ApiKey | None, page: str | None) -> Remover:
    if url:
        return _Through(url, key)
    if key:
        raise click.UsageError("--key-file is for --url, which is not given.")
    return _Direct(page)


@click.command()
@click.argument("igsids", nargs=-1, metavar="IGSID...")
@click.option("--stdin", is_flag=True, help="Read the ids from stdin, one a line.")
@click.option("--page", help="Which Page, if not that of PROXY_PAGE_TOKEN.")
@instance_options
@click.option("--json", "as_json", is_flag=True, help="A receipt a line, for scripts.")
@with_exit_code
def erase(
    igsids: Sequence[str],
    stdin: bool,
    page: str | None,
    url: str | None,
    key: ApiKey | None,
    as_json: bool,
) -> None:
    """Erase people, and print a receipt for each.

    The next GET of an erased person asks Meta again. Exits with 1 if nothing was
    stored about one of them, and stops at the first that cannot be erased.
    """
    if bool(igsids) == stdin:
        raise click.UsageError("Give one or more IGSIDs, or --stdin.")
    people = _read_people(_lines(sys.stdin) if stdin else igsids)
    remover = _new_remover(url, key, page)
    missing = 0
    for number, person in enumerate(people):
        try:
            receipt = remover.erase(person, page)
        except (CommandFailed, StoreUnavailable):
            _report_stop(number, people)
            raise
        if number and not as_json:
            click.echo()
        print_values(receipt, as_json)
        if not any(receipt["was_there"].values()):
            missing += 1
            _report_missing(receipt, remover)
    if missing:
        sys.exit(REFUSED)


def _lines(text: Iterable[str]) -> list[str]:
    return [line.strip() for line in text if line.strip()]


def _read_people(texts: Sequence[str]) -> list[Igsid]:
    """The ids of *texts*, each once: all of them are read before one is erased."""
    if not texts:
        raise click.UsageError("There is no id on stdin.")
    if len(texts) > MOST_IDS:
        raise click.UsageError(f"{len(texts)} ids; at most {MOST_IDS} at a time.")
    people = []
    for number, text in enumerate(texts, start=1):
        try:
            people.append(request_params.read_igsid(text))
        except Problem as exc:
            which = f"Id {number} of {len(texts)}: " if len(texts) > 1 else ""
            raise CommandFailed(MISUSED, f"{which}{exc} Nothing was erased.") from None
    return list(dict.fromkeys(people))


def _report_stop(erased: int, people: Sequence[Igsid]) -> None:
    if len(people) > 1:
        click.echo(
            f"Stopped: {erased} of {len(people)} are erased;"
            f" {last_four(people[erased])} and those after are not.",
            err=True,
        )


def _report_missing(receipt: dict[str, Any], remover: Remover) -> None:
    """Say on stderr that the receipt proves nothing, and where was looked."""
    prefix, page = receipt.get("key_prefix"), receipt.get("page")
    click.echo(
        f"Nothing was stored about {last_four(receipt['igsid'])} in {remover.where},"
        f" key prefix {prefix}, Page {page}.\nIf the service knew this person,"
        f" {remover.advice}",
        err=True,
    )


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    try:
        return read_duration(text) if text is not None else None
    except ValueError as exc:
        raise click.BadParameter(f"must be {exc}") from None


@click.command()
@click.argument("what", type=click.Choice([what.value for what in What]))
@click.option(
    "--older-than",
    callback=_seconds,
    help="Only what was fetched so long ago, or longer: 1h.",
)
@click.option("--page", help="Only what is one Page's; all Pages' if left out.")
@click.option("--dry-run", is_flag=True, help="Count, and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@instance_options
@click.option("--json", "as_json", is_flag=True, help="The counts, for scripts.")
@with_exit_code
def flush(
    what: str,
    older_than: float | None,
    page: str | None,
    dry_run: bool,
    yes: bool,
    url: str | None,
    key: ApiKey | None,
    as_json: bool,
) -> None:
    """Remove stored entries, all or some.

    WHAT is all, profiles, refusals, or the reason of the refusals to remove.
    """
    order = {"what": what, "older_than": older_than, "page": page, "dry_run": dry_run}
    remover = _new_remover(url, key, None)
    if not dry_run and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("No terminal to ask on; add --yes or --dry-run.")
        found = remover.flush(order | {"dry_run": True})
        click.confirm(f"Remove {found['matched']} entries?", abort=True, err=True)
    counts = remover.flush(order)
    print_values(counts, as_json)
    if not counts["matched"]:
        where = f"{remover.place}, {f'Page {page}' if page else 'all Pages'}"
        click.echo(f"Nothing matched in {where}.", err=True)
