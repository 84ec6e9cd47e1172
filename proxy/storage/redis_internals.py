"""The private names of redis-py that we use, all of them in one place.

It has no public name for them: `fast_reader` reads from the socket of a connection that
redis-py has opened (TLS, AUTH and Sentinels are its business), and
`invalidation_listener` receives pushes that redis-py hands to its own cache only.
Written for redis-py 8; check this module first when a newer one fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis._parsers import BaseParser

parse_error: Callable[[str], Exception] = BaseParser.parse_error
"""Make redis-py's exception of the text of an error reply."""


def socket_of(connection: Any) -> Any:
    """Return the socket of a *connection*; another one each time that it connects."""
    return connection._sock


def on_invalidation(connection: Any, receive: Callable[[Any], object]) -> None:
    """Call *receive* with each invalidation that *connection* reads."""
    connection._parser.set_invalidation_push_handler(receive)
