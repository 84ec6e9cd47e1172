"""The signature of a webhook: against a recorded one, over the raw bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.graph.webhook_signature import SignatureChecker

RECORDED = Path(__file__).parents[2] / "fixtures" / "graph"
VECTOR = json.loads((RECORDED / "webhook-signature-vector.json").read_text())["body"]
SIGNED, SECRET = VECTOR["raw_body"].encode(), VECTOR["app_secret"]
SIGNATURE = VECTOR["x_hub_signature_256"]


def is_signed(body: bytes, signature: str | None, secrets: list[str]) -> bool:
    return SignatureChecker(lambda: secrets).is_signed(body, signature)


@pytest.mark.parametrize("secrets", [[SECRET], ["other", SECRET], [SECRET, "other"]])
def test_signature_with_any_of_several_secrets_is_valid(secrets: list[str]) -> None:
    """As while a secret is rotated; over the bytes as Meta escapes them."""
    assert is_signed(SIGNED, SIGNATURE, secrets)


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        SIGNATURE.removeprefix("sha256="),
        SIGNATURE.replace("sha256", "sha1"),
        SIGNATURE[:-1],
        SIGNATURE + "0",
        SIGNATURE[:-1] + ("0" if SIGNATURE[-1] != "0" else "1"),
        "sha256=é",
        "sha256=\udcff",
    ],
    ids=ascii,
)
def test_any_other_signature_is_invalid(signature: str | None) -> None:
    """An odd header is not an error either."""
    assert not is_signed(SIGNED, signature, [SECRET])


def test_signature_of_a_reencoded_body_is_invalid() -> None:
    """A letter in place of its escape is the same JSON, but other bytes."""
    again = json.dumps(json.loads(SIGNED), ensure_ascii=False, separators=(",", ":"))

    assert not is_signed(again.encode(), SIGNATURE, [SECRET])


def test_signature_is_invalid_without_secrets() -> None:
    """No secret is not the same as an empty one."""
    assert not is_signed(SIGNED, SIGNATURE, [])


def test_signature_checker_asks_for_the_secrets_each_time() -> None:
    """A secret that is added to a file while serving is valid at once."""
    secrets: list[str] = []
    checker = SignatureChecker(lambda: secrets)
    assert not checker.is_signed(SIGNED, SIGNATURE)

    secrets.append(SECRET)

    assert checker.is_signed(SIGNED, SIGNATURE)
