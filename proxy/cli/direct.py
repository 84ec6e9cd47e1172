"""The Pages of the settings, for a command that acts on the store and the Graph."""

from __future__ import annotations

import click
from flask import Flask

from proxy.assembly import build_pages
from proxy.config.settings import Settings
from proxy.live_files import graph_url_of
from proxy.logs import write_to_stderr
from proxy.lookup.pages import Pages


def place_of(settings: Settings) -> str:
    """Where the entries of *settings* are, for people to read."""
    return f"store {settings.store_url.masked}, key prefix {settings.key_prefix}"


def new_pages(settings: Settings, page: str | None = None) -> Pages:
    """Build the Pages of *settings*, and print what is acted on, on stderr.

    That is the store, the prefix of its keys, and the *page*'s Graph.
    """
    write_to_stderr(settings.log_level)
    pages = build_pages(Flask("proxy"), settings)
    url = graph_url_of(settings, page) or settings.graph_url
    click.echo(
        f"{place_of(settings)}, Graph {url}/{settings.graph_version}",
        err=True,
    )
    return pages
