"""The demo: an engine, a simulated Meta and the service, all on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from proxy.config.settings import PREFIX, Settings
from proxy.embedded import engine
from proxy.logs import write_to_stderr
from proxy.server.parent import serve, writable_folder
from proxy.storage.store_url import StoreUrl

SIMULATOR_PORT = 9100
"""Where the simulated Meta listens, or the next free port: as docs/ have it."""

LISTEN = f"{PREFIX}LISTEN"
"""The one setting that the demo reads."""

TOKEN = "EAADEMOPAGETOKEN"
SECRET = "0123456789abcdef0123456789abcdef"
VERIFY_TOKEN = "a-word-of-your-own"
"""Not secret: docs/api.md has them, so that its examples can be tried here."""
SHOP_TOKEN = "IGAADEMOSHOPTOKEN"
SHOP_SECRET = "demoshopsecret"
PAGES_FILE = """\
[pages]

[pages.shop]
token = "{token}"
app_secret = "{secret}"
url = "{url}"
ids = ["17841400000000001"]
"""
"""The file with a second Page, of an Instagram login, with its own app secret."""


def run_demo() -> None:
    """Serve the demo until Ctrl-C, and print at the start what to try."""
    write_to_stderr("warning")
    if ignored := _ignored_settings():
        only = f"The demo reads no setting but {LISTEN}."
        click.echo(f"{only} Ignored: {ignored}", err=True)
    settings = Settings.from_env(
        {
            f"{PREFIX}PAGE_TOKEN": TOKEN,
            f"{PREFIX}APP_SECRET": SECRET,
            f"{PREFIX}WEBHOOK_VERIFY_TOKEN": VERIFY_TOKEN,
            LISTEN: os.environ.get(LISTEN, ""),
            f"{PREFIX}DRAIN_FOR": "0s",
            f"{PREFIX}LOG_LEVEL": "warning",
        }
    )
    writable_folder()
    webhook_url = f"http://{settings.listen}/webhooks/instagram"
    with (
        engine.start() as embedded,
        _simulated_graph(webhook_url, _simulator_port(settings)) as graph_url,
        TemporaryDirectory(prefix="profile-proxy-demo-") as folder,
    ):
        pages = Path(folder, "pages.toml")
        pages.write_text(
            PAGES_FILE.format(token=SHOP_TOKEN, secret=SHOP_SECRET, url=graph_url)
        )
        settings = replace(
            settings,
            store_url=StoreUrl.parse(embedded.url),
            graph_url=graph_url,
            pages_file=pages,
        )
        serve(settings, lambda: click.echo(_what_to_try(settings, graph_url, pages)))


def _ignored_settings() -> str:
    """The names, not the values, of the settings that have no effect here."""
    names = sorted(name for name in os.environ if name.startswith(PREFIX))
    return ", ".join(name for name in names if name != LISTEN)


@contextmanager
def _simulated_graph(webhook_url: str, port: int) -> Iterator[str]:
    """Run a simulated Graph API as a child process at *port* or a next; yields its URL.

    It ends with this process, however that ends.
    """
    command = [sys.executable, "-m", "proxy.simulator", "--exit-with-stdin"]
    with subprocess.Popen(
        [
            *(*command, "--listen", f"127.0.0.1:{port}", "--or-next"),
            *("--token", TOKEN),
            *("--app-secret", SECRET, "--webhook-url", webhook_url),
            *("--page", f"shop={SHOP_TOKEN}:{SHOP_SECRET}"),
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


def _simulator_port(settings: Settings) -> int:
    """The first port to try: not the proxy's own."""
    return SIMULATOR_PORT + (settings.listen.port == SIMULATOR_PORT)


def _what_to_try(settings: Settings, graph_url: str, pages: Path) -> str:
    base = f"http://{settings.listen}"
    handshake = f"hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=1158"
    return f"""\
profile-proxy demo: the proxy at {base}, a simulated Meta at {graph_url}

Try, in another terminal:
  curl -i {base}/profiles/1254001000000001   Ada: a miss, and then a hit
  curl -i -H 'Cache-Control: no-cache' {base}/profiles/1254001000000001   asked again
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
  curl {graph_url}/_sim/   how to break it on purpose

And the commands: stats, top, get, erase, flush
  export PROXY_LISTEN={settings.listen} PROXY_STORE_URL={settings.store_url.text}
  export PROXY_GRAPH_URL={graph_url} PROXY_PAGE_TOKEN={TOKEN}
  export PROXY_APP_SECRET={SECRET} PROXY_PAGES_FILE={pages}
  {sys.argv[0]} stats
  {sys.argv[0]} stats --page shop

Take a Page out of {pages}, and it is gone in 2 s.

Ctrl-C ends it, and leaves nothing behind.
"""
