"""The labels of the request metric, and the reader of openapi.yaml."""

from __future__ import annotations

from importlib import resources

import pytest
import yaml

from proxy.app import create_app
from proxy.config.settings import Settings
from proxy.web.route_labels import (
    HIT_ROUTE,
    page_label,
    read_statuses,
    request_labels,
    route_label,
)

TEXT = resources.files("proxy.web").joinpath("openapi.yaml").read_text("utf-8")


def test_statuses_are_those_that_a_yaml_parser_reads() -> None:
    """With a Page in front of a path or not."""
    labels = request_labels()
    expected: dict[str, set[int]] = {}
    for path, item in yaml.safe_load(TEXT)["paths"].items():
        route = path.replace("{", "<").replace("}", ">").removeprefix("/pages/<page>")
        for method, described in item.items():
            if method != "parameters":
                listed = map(int, described["responses"])
                expected.setdefault(route, set()).update(listed)

    assert labels.statuses == expected


def test_lookups_are_the_routes_that_have_a_page() -> None:
    """Not those of operators."""
    lookups = request_labels().lookups

    assert {HIT_ROUTE, "/profiles", "/profiles/<igsid>/picture"} <= set(lookups)
    assert not any("admin" in route for route in lookups)


def test_every_route_of_the_app_has_its_label_in_openapi() -> None:
    """Otherwise its series would not exist before its first request."""
    env = {"PROXY_PAGE_TOKEN": "EAAX", "PROXY_WEBHOOK_VERIFY_TOKEN": "word"}
    app = create_app(Settings.from_env(env | {"PROXY_APP_SECRET": "a1" * 16}))
    labels = {route_label(rule.rule) for rule in app.url_map.iter_rules()}

    assert labels <= set(request_labels().statuses)


def test_other_lines_of_the_file_are_not_statuses() -> None:
    """Such as those of its components."""
    text = 'paths:\n  /a:\n    get:\n        "200":\ncomponents:\n        "404":\n'

    assert read_statuses(text) == {"/a": {200}}


@pytest.mark.parametrize(
    ("page", "is_served", "label"),
    [
        ("default", False, "default"),
        ("shop", True, "shop"),
        ("nowhere", False, ""),
        (None, False, ""),
    ],
)
def test_page_that_is_not_served_is_no_label(page, is_served, label) -> None:
    """A caller can write any into a path."""
    assert page_label(page, is_served=is_served) == label
