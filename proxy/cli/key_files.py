"""Commands about API keys: make one, and list those of a file."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import click

from proxy.cli.output import MISUSED, CommandFailed, with_exit_code
from proxy.watched_file import BadFile, read_text
from proxy.web import auth

KEYS_FILE = "PROXY_API_KEYS_FILE"
"""The setting that names the file of keys."""

DIGITS_SHOWN = 12
"""Of a digest: enough to tell two keys apart, and to find one."""


class _Added(NamedTuple):
    """How a line was added to a file."""

    is_new_file: bool
    keys_of_name: int


@click.group()
def key() -> None:
    """Make and list API keys."""


@key.command("new")
@click.argument("name")
@click.option(
    "--scopes",
    type=click.Choice(["read", "admin", "read,admin"]),
    default="read",
    show_default=True,
    help="What the key may do; admin does not imply read.",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="Add the line to this file of keys; a new one has mode 0600.",
)
@click.option("--json", "as_json", is_flag=True, help="Key and line, for scripts.")
@with_exit_code
def new(name: str, scopes: str, file: Path | None, as_json: bool) -> None:
    """Make a key, and its line for the file of keys.

    The key is shown this once, and kept nowhere. Without --file the line alone goes
    to stdout, and the key to stderr; with --file the key alone goes to stdout.
    """
    try:
        secret, line = auth.new_key(name, frozenset(map(auth.Scope, scopes.split(","))))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="NAME") from None
    if file is not None:
        _report(file, name, _add_line(file, line))
    if as_json:
        click.echo(json.dumps({"key": secret, "line": line}))
        return
    click.echo("The key, shown this once; give it to the caller:", err=True)
    click.echo(secret, err=file is None)
    if file is None:
        click.echo("Its line, for PROXY_API_KEYS_FILE (on stdout):", err=True)
        click.echo(line)


@key.command("list")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    envvar=KEYS_FILE,
    help=f"The file of keys; {KEYS_FILE} if left out.",
)
@click.option("--json", "as_json", is_flag=True, help="A list, for scripts.")
@with_exit_code
def list_(file: Path | None, as_json: bool) -> None:
    """List the keys of a file: name, scopes, and how the digest begins.

    The digest of a key is its SHA-256: printf %s "$KEY" | sha256sum
    """
    if file is None:
        raise click.UsageError(f"Give the file of keys as --file, or in {KEYS_FILE}.")
    rows = [
        {
            "name": client.name,
            "scopes": ",".join(s.value for s in auth.Scope if s in client.scopes),
            "digest": digest[:DIGITS_SHOWN],
        }
        for digest, client in _read(file, _text_of(file)).items()
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        click.echo(f"{row['name']:<{width}}  {row['scopes']:<10}  {row['digest']}")


def _add_line(path: Path, line: str) -> _Added:
    """Append *line* to the file of keys at *path*, which must be valid afterwards.

    Owner, mode and inode stay, so that a service that runs as another user, or in a
    container with this file mounted, still reads it. It is one write, so a service that
    reads the file meanwhile finds the old content or the new one.

    Raises:
        CommandFailed: the file is invalid, or cannot be written; it is unchanged.
    """
    is_new = not path.exists()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "rb+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # Another `key new` waits.
            before = _text_of(path)
            addition = f"{line}\n"
            if before and not before.endswith("\n"):
                addition = f"\n{addition}"
            keys = _read(path, before + addition)
            _write_whole(file, addition.encode())
    except OSError as exc:
        raise CommandFailed(MISUSED, f"{path}: {exc.strerror}") from None
    name = line.split()[0]
    _read(path, _text_of(path))
    return _Added(is_new, sum(client.name == name for client in keys.values()))


def _write_whole(file: FileIO, line: bytes) -> None:
    """Append *line* to *file*, or nothing: half a line would spoil the whole file.

    Raises:
        OSError: there is no room for all of it.
    """
    length = os.fstat(file.fileno()).st_size
    if file.write(line) < len(line):
        file.truncate(length)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _report(path: Path, name: str, added: _Added) -> None:
    """Say on stderr what was done to the file, and what is left to do."""
    click.echo(f"Added a line for {name} to {path}.", err=True)
    if added.is_new_file:
        click.echo(
            "The file is new, with mode 0600: the service must own it.", err=True
        )
    if added.keys_of_name > 1:
        click.echo(
            f"{name} has {added.keys_of_name} keys there now: remove the older line"
            " once no caller uses that key.",
            err=True,
        )


def _text_of(path: Path) -> str:
    try:
        return read_text(path)
    except BadFile as exc:
        raise CommandFailed(MISUSED, f"{path} {exc}") from None


def _read(path: Path, text: str) -> auth.Keys:
    try:
        return auth.read_keys(text)
    except BadFile as exc:
        raise CommandFailed(MISUSED, f"{path} {exc}. Nothing was changed.") from None
