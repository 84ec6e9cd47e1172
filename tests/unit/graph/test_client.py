"""What of the Graph client can be known without a network."""

import json
from pathlib import Path

from proxy.graph.client import GraphClient, appsecret_proof

VECTOR = (
    Path(__file__).parents[2] / "fixtures" / "graph" / "webhook-signature-vector.json"
)


def test_the_proof_is_the_one_that_meta_computes() -> None:
    """Lower-case hex of HMAC-SHA256, keyed with the app's secret."""
    example = json.loads(VECTOR.read_text())["body"]["appsecret_proof_example"]

    proof = appsecret_proof(example["access_token"], example["app_secret"])

    assert proof == example["appsecret_proof"]


def test_the_repr_of_a_client_shows_where_it_asks_and_no_secret() -> None:
    """It may stand in a traceback's line or a debugger's."""
    client = GraphClient(
        "https://graph.facebook.com/v25.0/",
        token=lambda: "EAATESTTOKEN",
        app_secret=lambda: "0123456789abcdef",
        blocked=frozenset(),
        calls_at_once=1,
    )

    assert repr(client) == "GraphClient('https://graph.facebook.com/v25.0')"


def test_a_new_client_asks_for_no_token() -> None:
    """It is read for each call, so that a rotated one is used at once."""
    asked: list[str] = []

    def token() -> str:
        asked.append("token")
        return "EAATESTTOKEN"

    GraphClient(
        "https://graph.facebook.com/v25.0",
        token=token,
        app_secret=token,
        blocked=frozenset(),
        calls_at_once=1,
    )

    assert asked == []
