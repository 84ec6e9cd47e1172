"""The Graph client: its proof, its repr and its reading of the token, offline."""

import json
from pathlib import Path

from proxy.graph.client import GraphClient, appsecret_proof

VECTOR = (
    Path(__file__).parents[2] / "fixtures" / "graph" / "webhook-signature-vector.json"
)


def test_appsecret_proof_equals_metas_example() -> None:
    """The proof is HMAC-SHA256 in lower-case hex, keyed with the app's secret."""
    example = json.loads(VECTOR.read_text())["body"]["appsecret_proof_example"]

    proof = appsecret_proof(example["access_token"], example["app_secret"])

    assert proof == example["appsecret_proof"]


def test_client_repr_shows_the_base_url_and_no_secret() -> None:
    """A traceback or a debugger may print it."""
    client = GraphClient(
        "https://graph.facebook.com/v25.0/",
        token=lambda: "EAATESTTOKEN",
        app_secret=lambda: "0123456789abcdef",
        blocked=frozenset(),
        calls_at_once=1,
    )

    assert repr(client) == "GraphClient('https://graph.facebook.com/v25.0')"


def test_client_constructor_does_not_read_the_token() -> None:
    """The token is read for each call, so that a rotated one is used at once."""
    reads: list[str] = []

    def token() -> str:
        reads.append("token")
        return "EAATESTTOKEN"

    GraphClient(
        "https://graph.facebook.com/v25.0",
        token=token,
        app_secret=token,
        blocked=frozenset(),
        calls_at_once=1,
    )

    assert reads == []
