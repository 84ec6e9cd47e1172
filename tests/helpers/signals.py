"""Default signal dispositions for every process that a test starts."""

from __future__ import annotations

import signal

INHERITED = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)


def catch_ignored_signals() -> None:
    """Catch, with a handler that does nothing, the signals that this process ignores.

    A child inherits an ignored signal, and a shell in the background ignores SIGINT,
    nohup SIGHUP: a test's service could then not be stopped. A caught signal is set
    back to its default by exec, and this process goes on ignoring it in effect.

    Source: https://man7.org/linux/man-pages/man7/signal.7.html (Signal dispositions)
    """
    for number in INHERITED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
