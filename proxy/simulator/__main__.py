"""The simulator's command line: ``python -m proxy.simulator``."""

import argparse
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial

from proxy.simulator.people import MAX_PAGES
from proxy.simulator.scenario import FIRST_PAGE
from proxy.simulator.server import DEFAULT_TOKEN, Simulator

NEXT_PORTS = 100
"""How many ports ``--or-next`` tries after the first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, Ctrl-C or, with ``--exit-with-stdin``, the end of stdin.

    Once it listens, it prints its address to stdout as one line of JSON:
    ``{"url": "http://127.0.0.1:9100"}``.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    host, port = options.listen
    app_secret = options.app_secret or os.environ.get("SIM_APP_SECRET") or None
    if options.webhook_url and not app_secret:
        parser.error("--webhook-url needs --app-secret, to sign with")
    names = [name for name, _ in options.page]
    if len(set(names)) < len(names) or len(names) >= MAX_PAGES:
        parser.error(f"--page names each Page once, and {MAX_PAGES - 1} at most")
    new_simulator = partial(
        Simulator,
        host,
        token=options.token or os.environ.get("SIM_TOKEN") or DEFAULT_TOKEN,
        app_secret=app_secret,
        public_url=options.public_url,
        webhook_url=options.webhook_url,
        pages=dict(options.page),
        is_verbose=options.verbose,
    )
    try:
        simulator = _listen(new_simulator, port, NEXT_PORTS if options.or_next else 0)
    except OSError as exc:
        print(f"cannot listen on {host}:{port}: {exc.strerror}", file=sys.stderr)
        return 1
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        with simulator:
            print(json.dumps({"url": simulator.url}), flush=True)
            _wait_for_end(for_stdin=options.exit_with_stdin)
    except KeyboardInterrupt:
        pass
    return 0


def _listen(new_simulator: Callable[..., Simulator], port: int, more: int) -> Simulator:
    """A simulator at *port*, or at the first free one of so many *more* after it.

    Raises:
        OSError: none of them is free, or the address is not this machine's.
    """
    for each in range(port, min(port + more, 65535)):
        try:
            return new_simulator(port=each)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
    return new_simulator(port=min(port + more, 65535))


def _wait_for_end(*, for_stdin: bool) -> None:
    # In the main thread, because only that one is interrupted by a signal.
    if not for_stdin:
        threading.Event().wait()
    while os.read(0, 65536):
        pass


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m proxy.simulator", description="A stand-in for Meta's Graph API."
    )
    parser.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 9100),
        metavar="HOST:PORT",
        help="where to listen; port 0 takes any free one (127.0.0.1:9100)",
    )
    parser.add_argument(
        "--or-next",
        action="store_true",
        help=f"if the port is taken, take the next free one of {NEXT_PORTS}",
    )
    parser.add_argument(
        "--token", help=f"the token that is accepted (SIM_TOKEN, {DEFAULT_TOKEN})"
    )
    parser.add_argument(
        "--app-secret", help="if given, appsecret_proof is demanded (SIM_APP_SECRET)"
    )
    parser.add_argument(
        "--page",
        type=_page,
        action="append",
        default=[],
        metavar="NAME=TOKEN[:SECRET]",
        help="one more Page, with other ids for its people; a token IGA... is one of an"
        " Instagram login, and answered as graph.instagram.com does",
    )
    parser.add_argument(
        "--public-url",
        metavar="URL",
        help="the base URL of the pictures, if it is not the address it listens at",
    )
    parser.add_argument(
        "--webhook-url",
        type=_webhook_url,
        metavar="URL",
        help="receives webhooks, signed with the app secret, about messages",
    )
    parser.add_argument(
        "--exit-with-stdin",
        action="store_true",
        help="end when stdin does, and so with the process that started it",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="one line per request on stderr"
    )
    return parser


def _page(text: str) -> tuple[str, tuple[str, str | None]]:
    name, _, rest = text.partition("=")
    token, _, secret = rest.partition(":")
    if not name or not token or name == FIRST_PAGE:
        raise argparse.ArgumentTypeError("NAME=TOKEN or NAME=TOKEN:SECRET is needed")
    return name, (token, secret or None)


def _webhook_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("http:// or https:// is needed")
    return text


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError("HOST:PORT is needed")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    sys.exit(main())
