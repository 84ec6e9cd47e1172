"""The command that opens a gate, in the store or through an instance."""

from __future__ import annotations

import os
from typing import Any

import click

from proxy.cli.direct import new_pages, place_of
from proxy.cli.instance import ApiKey, Instance, instance_options, key_of
from proxy.cli.output import print_values, with_exit_code
from proxy.cli.removals import acting_user
from proxy.domain.failures import Cause
from proxy.domain.profile import DEFAULT_PAGE
from proxy.live_files import read_settings
from proxy.logs import audited
from proxy.web import operator_json


@click.group()
def gate() -> None:
    """Gates to Meta."""


@gate.command("open")
@click.argument("cause", type=click.Choice([cause.value for cause in Cause]))
@click.option("--page", help="Which Page, if not that of PROXY_PAGE_TOKEN.")
@instance_options
@click.option("--json", "as_json", is_flag=True, help="One object, for scripts.")
@with_exit_code
def open_(
    cause: str, page: str | None, url: str | None, key: ApiKey | None, as_json: bool
) -> None:
    """Open the gate for a cause: the next caller asks Meta."""
    if url:
        place = f"the instance at {url}"
        click.echo(place, err=True)
        opened = Instance(url, key_of(key)).open_gate(cause, page)
    elif key:
        raise click.UsageError("--key-file is for --url, which is not given.")
    else:
        place, opened = _open_in_store(Cause(cause), page)
    print_values(opened, as_json)
    if opened.get("closed_for") == 0:
        where = f"{place}, Page {page or DEFAULT_PAGE}"
        click.echo(f"No gate was closed for {cause} in {where}.", err=True)


def _open_in_store(cause: Cause, page: str | None) -> tuple[str, dict[str, Any]]:
    """Open a gate in the store of the settings; return where that is, and its state."""
    settings = read_settings(os.environ)
    pages, name = new_pages(settings, page), page or DEFAULT_PAGE
    with audited("open_gate", by=acting_user(), page=name, cause=cause.value) as line:
        lookup = pages.find(page)
        opened = operator_json.render_opened(name, cause, lookup.open_gate(cause))
        line |= {each: opened[each] for each in ("closed_for", "failures")}
    return place_of(settings), opened
