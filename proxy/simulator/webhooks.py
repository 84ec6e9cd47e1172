"""Webhooks about messages, signed as Meta signs them."""

import hashlib
import hmac
import http.client
import secrets
from urllib.parse import urlsplit

from proxy.simulator.replies import meta_json

_ACCOUNT = 17841400000000000
REPLY_TIMEOUT = 10.0


def account_of(number: int) -> str:
    """Return the id of the Instagram account of the Page with that *number*."""
    return str(_ACCOUNT + number)


class Webhooks:
    """Sends webhooks to *url*."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def send_message(
        self, igsid: str, account: str, secret: str, now: float
    ) -> int | None:
        """Send that *igsid* has written to *account*, signed with *secret*.

        Return the status of the answer; None if there was none.
        """
        body = meta_json(_message(igsid, account, int(now * 1000)))
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/json",
            "x-hub-signature-256": f"sha256={digest}",
        }
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._url.netloc, timeout=REPLY_TIMEOUT)
        try:
            connection.request("POST", self._url.path or "/", body, headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


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
