"""openapi.yaml names the fields of a profile: the same ones, in the same order."""

from __future__ import annotations

from pathlib import Path

import yaml

import proxy.web
from proxy.domain.profile import FIELDS

DESCRIPTION = yaml.safe_load((Path(*proxy.web.__path__) / "openapi.yaml").read_text())
SCHEMAS = DESCRIPTION["components"]["schemas"]


def test_openapi_lists_every_field_that_can_be_asked_for() -> None:
    """``id`` may be asked for too, as of Meta."""
    assert SCHEMAS["Field"]["enum"] == ["id", *FIELDS]


def test_openapi_describes_every_field_of_a_profile() -> None:
    assert list(SCHEMAS["Profile"]["properties"]) == [
        "id",
        *FIELDS,
        "fetched_at",
        "picture_expires_at",
        "picture_link",
    ]


def test_openapi_describes_every_field_of_a_node() -> None:
    """A node is a profile in Meta's format."""
    assert list(SCHEMAS["Node"]["properties"]) == ["id", *FIELDS]
