"""The signature of a webhook: the HMAC by which Meta proves that it is the sender.

Source: https://developers.facebook.com/docs/graph-api/webhooks/getting-started
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence


class SignatureChecker:
    """Checks the header ``X-Hub-Signature-256`` against every secret in use."""

    def __init__(self, secrets: Callable[[], Sequence[str]]) -> None:
        """*secrets* returns the secrets that are valid now; they may be rotated."""
        self._secrets = secrets

    def is_signed(self, body: bytes, signature: str | None) -> bool:
        """Return whether the *signature* of *body* was made with one of the secrets.

        *body* is the raw bytes: Meta escapes some characters (``\\u00e9``, ``\\/``),
        so parsing and encoding it again would change the signature.
        """
        given = (signature or "").encode("utf-8", "surrogateescape")
        # Compare with all of them, even after a match: the time reveals nothing.
        return any(
            [hmac.compare_digest(given, _sign(body, s)) for s in self._secrets()]
        )


def _sign(body: bytes, secret: str) -> bytes:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return f"sha256={digest}".encode()
