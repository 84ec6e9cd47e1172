"""Webhooks: what Meta tells the business, signed as Meta signs it."""

import hashlib
import hmac
import http.client
import secrets
from urllib.parse import urlsplit

from proxy.simulator.replies import escaped

_ACCOUNT = 17841400000000000
ANSWERED_WITHIN = 10.0


def account_of(number: int) -> str:
    """The id of the Instagram account that the Page with that *number* has."""
    return str(_ACCOUNT + number)


class Webhooks:
    """Sends webhooks to *url*."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def tell_of_message(
        self, igsid: str, account: str, secret: str, now: float
    ) -> int | None:
        """Say that *igsid* has written to *account*, signed with *secret*.

        The status that comes back; None for none.
        """
        body = escaped(_message(igsid, account, int(now * 1000)))
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/json",
            "x-hub-signature-256": f"sha256={digest}",
        }
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        line = kind(self._url.netloc, timeout=ANSWERED_WITHIN)
        try:
            line.request("POST", self._url.path or "/", body, headers)
            return line.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            line.close()


def _message(igsid: str, account: str, now: int) -> dict[str, object]:
    message = {"mid": f"m_{secrets.token_hex(12)}", "text": "Hello! ¿Qué tal? 🌸"}
    event = {
        "sender": {"id": igsid},
        "recipient": {"id": account},
        "timestamp": now,
        "message": message,
    }
    entry = {"time": now, "id": account, "messaging": [event]}
    return {"object": "instagram", "entry": [entry]}
