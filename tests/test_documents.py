"""The documents name every setting, route, code, command and metric, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxy.app import create_app
from proxy.cli.commands import main
from proxy.config.rows import ROWS
from proxy.config.settings import OF_COMMANDS, Settings
from proxy.domain.answer import FetchResult
from proxy.domain.failures import Cause
from proxy.domain.profile import Reason
from proxy.lookup.health import REASONS
from proxy.observability.metrics import Metrics
from proxy.observability.store_reading import StoreReading
from proxy.simulator.index import ROUTES
from proxy.web import graph_api, problems
from tests.helpers.builders import a_profile

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
OPENAPI = yaml.safe_load((ROOT / "proxy" / "web" / "openapi.yaml").read_text())

CODES = {
    **{reason.value: status for reason, (status, _) in problems.REFUSALS.items()},
    **{failure.code: status for failure, status in problems.FAILURES.items()},
    **problems.PROBLEMS,
}


def rows(page: Path, column: int = 0) -> dict[str, list[str]]:
    """Return the table rows of *page* that begin with a piece of code."""
    found = {}
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if name := re.match(r"`([^`]+)`", cells[column]):
            if line.startswith("|"):
                found[name[1]] = cells
    return found


def routes() -> set[tuple[str, str]]:
    """Return every route of the service, as OpenAPI writes them."""
    given = {"PAGE_TOKEN": "EAATEST"}
    given |= {"WEBHOOK_VERIFY_TOKEN": "word", "WEBHOOK_SECRETS": "secret"}
    env = {f"PROXY_{name}": value for name, value in given.items()}
    app = create_app(Settings.from_env(env))
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_every_setting_is_documented_with_its_default() -> None:
    """docs/settings.md has the rows of settings.py, in the same words and order."""
    documented = {
        name: cells
        for name, cells in rows(DOCS / "settings.md").items()
        if name.startswith("PROXY_")
    }

    assert list(documented) == [f"PROXY_{row.name}" for row in ROWS]
    for row in ROWS:
        cells = documented[f"PROXY_{row.name}"]
        assert cells[2] == row.help
        assert ("(secret)" in cells[0]) is row.secret
        if row.default:
            assert cells[1] == f"`{row.default}`"


def test_no_page_names_an_unknown_setting() -> None:
    """A reader would set it without effect."""
    settings = {row.name for row in ROWS} | OF_COMMANDS
    settings |= {f"{row.name}_FILE" for row in ROWS if row.may_be_in_file}

    for page in [*PAGES, ROOT / "docker-compose.yml", ROOT / "Dockerfile"]:
        named = set(re.findall(r"\bPROXY_([A-Z_]*[A-Z])\b", page.read_text()))
        assert named - {"SERVICE", "PORT"} <= settings, page.name


def test_every_route_is_documented() -> None:
    """In openapi.yaml and docs/api.md, which name no other route."""
    described = {
        (method.upper(), path)
        for path, item in OPENAPI["paths"].items()
        for method in item
        if method != "parameters"
    }
    page = (DOCS / "api.md").read_text()
    listed = set(re.findall(r"^\| `([A-Z]+) (/[^`]*)` \|", page, re.MULTILINE))

    assert described == routes()
    assert {(m, p.replace("<", "{").replace(">", "}")) for m, p in listed} == routes()


def test_every_code_is_documented_with_its_status() -> None:
    """In docs/api.md, and in the enumeration of openapi.yaml."""
    documented = {
        name: cells for name, cells in rows(DOCS / "api.md").items() if name in CODES
    }
    problem = OPENAPI["components"]["schemas"]["Problem"]

    assert {name: int(cells[1]) for name, cells in documented.items()} == CODES
    assert set(problem["properties"]["code"]["enum"]) == set(CODES)


def statuses(operation: str) -> set[int]:
    """Return the statuses of an operation in openapi.yaml."""
    for item in OPENAPI["paths"].values():
        for method, described in item.items():
            if method != "parameters" and described["operationId"] == operation:
                return set(map(int, described["responses"]))
    raise KeyError(operation)


def test_every_status_of_a_lookup_is_documented() -> None:
    """For every route that makes a lookup."""
    failures = set(problems.FAILURES.values())
    refusals = {status for status, _ in problems.REFUSALS.values()}
    meta_s = {status for status, _ in graph_api.FAILURES.values()}
    meta_s.add(graph_api.TRANSIENT[0])
    admission = {401, 403}

    assert statuses("readProfile") == {200, 304, 400, *admission, *refusals, *failures}
    assert statuses("readPicture") == {
        *(200, 302, 400),
        *admission,
        *refusals,
        *failures,
    }
    assert statuses("readProfiles") == {200, 400, *admission, 404}
    assert statuses("refreshProfile") == {
        *(200, 400, 404, 411, 413),
        *admission,
        *failures,
    }
    assert statuses("readNode") == {200, 304, 400, *admission, 404, *meta_s}
    assert statuses("readNodeWithoutVersion") == statuses("readNode")


@pytest.mark.parametrize(
    "operation",
    [
        *("readProfile", "readPicture", "readProfiles", "readNode", "readStats"),
        "readNodeWithoutVersion",
        *("inspectProfile", "eraseProfile", "refreshProfile"),
    ],
)
def test_routes_of_a_named_page_have_the_statuses_of_the_default(
    operation: str,
) -> None:
    """They are the same functions."""
    assert statuses(f"{operation}OfPage") == statuses(operation)
    assert 404 in statuses(operation)


@pytest.mark.parametrize("operation", ["flush", "refreshProfile", "receiveWebhook"])
def test_refused_body_lengths_are_documented(operation) -> None:
    """A body of unknown or too large length is refused before it is read."""
    assert {411, 413} <= statuses(operation)


def test_every_reason_of_degraded_is_documented() -> None:
    """In docs/api.md, and in docs/operations.md with its remedy."""
    health = OPENAPI["paths"]["/readyz"]["get"]["responses"]["200"]["content"]
    properties = health["application/json"]["schema"]["properties"]
    reasons = set(properties["reasons"]["items"]["anyOf"][0]["enum"])
    operations = (DOCS / "operations.md").read_text()
    table = operations.partition("| reason | what to do |")[2].partition("\n\n")[0]
    api = (DOCS / "api.md").read_text()
    listed = api.partition("The reasons: ")[2].partition(". ")[0]

    assert reasons == set(REASONS)
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == reasons
    assert set(re.findall(r"`(\w+)`", listed)) == reasons


def test_ttl_of_each_refusal_is_documented() -> None:
    """The table of codes agrees with the defaults of the settings."""
    seconds = {"15 min": 900, "6 h": 21600, "24 h": 86400, "10 min": 600}
    settings = Settings.from_env({"PROXY_PAGE_TOKEN": "EAATEST"})
    documented = rows(DOCS / "api.md")

    for reason, ttl in {
        Reason.CONSENT_REQUIRED: settings.consent_ttl,
        Reason.BLOCKED: settings.blocked_ttl,
        Reason.NOT_FOUND: settings.not_found_ttl,
        Reason.UNAVAILABLE: settings.unavailable_ttl,
    }.items():
        assert seconds[documented[reason.value][2]] == ttl


def test_every_control_of_the_simulator_is_documented() -> None:
    """docs/break-it-on-purpose.md has the list that the simulator returns."""
    page = (DOCS / "break-it-on-purpose.md").read_text()
    listed = re.findall(r"^\| `([A-Z]+) (/_sim/\S*)` \| (.*) \|$", page, re.MULTILINE)

    bodies = [f": `{each.body}`" if each.body else "" for each in ROUTES]
    assert listed == [
        (each.method, each.path, each.what + body)
        for each, body in zip(ROUTES, bodies, strict=True)
    ]


def test_every_command_is_documented() -> None:
    """In docs/operations.md; ``key new`` by both of its words."""
    commands = {
        f"{name} {sub}" if isinstance(command, click.Group) else name
        for name, command in main.commands.items()
        for sub in (command.commands if isinstance(command, click.Group) else [""])
    }
    page = (DOCS / "operations.md").read_text()
    listed = re.findall(r"^\| `profile-proxy ([a-z ]+?)(?: [A-Z]+)?` \|", page, re.M)

    assert set(listed) == commands


def exposed() -> dict[str, tuple[str, set[str]]]:
    """Return the type and the labels of every possible metric."""
    metrics = Metrics()
    metrics.of_page("default").count_call(
        FetchResult(a_profile(), 1.0, "0badcafe", "v25.0"), 0.1, client="inbox"
    )
    metrics.requests.count("/healthz", 200, "", 0.1)
    metrics.degraded.set(["store_full"])
    reading = StoreReading(dict.fromkeys(Cause, 0.0), usage_percent=1.0)
    text = metrics.exposition({"default": reading}).decode()
    families = text_string_to_metric_families(text)
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in families
    }


def test_every_metric_is_documented() -> None:
    """In docs/metrics.md, with its type and its labels, and no other metric."""
    documented = {
        name: (cells[1], set(re.findall(r"`(\w+)`", cells[2])))
        for name, cells in rows(DOCS / "metrics.md").items()
        if name.startswith(("profile_proxy_", "process_"))
    }

    assert documented == exposed()


def test_no_page_names_an_unknown_metric() -> None:
    """An alert on an unknown name never fires."""
    for page in PAGES:
        named = set(re.findall(r"\bprofile_proxy_[a-z_]+", page.read_text()))
        assert named <= set(exposed()), page.name


def test_every_source_of_an_answer_is_documented_with_its_outcomes() -> None:
    """docs/metrics.md lists the sources that are counted."""
    answers = Metrics().of_page("default").answers
    sources = {source for source, _ in answers}
    failures = {code for source, code in answers if source == "none"}
    documented = rows(DOCS / "metrics.md")

    names = {n for n in documented if not n.startswith(("profile_proxy_", "process_"))}
    assert sources == names
    assert failures == set(re.findall(r"`(\w+)`", documented["none"][1]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_has_a_target(page: Path) -> None:
    """Relative links are resolved from their page."""
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_test_that_a_page_names_exists() -> None:
    """The table of promises must not name removed tests."""
    page = (DOCS / "architecture.md").read_text()

    for path in re.findall(r"`((?:unit|stores|processes|end_to_end)/[\w./]*)`", page):
        assert (ROOT / "tests" / path).exists(), path


def test_decisions_are_numbered_consecutively() -> None:
    """And each has all four sections."""
    pages = sorted((DOCS / "decisions").glob("*.md"))

    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text()
        for word in ("**Context.**", "**Decision.**", "**Consequences.**", "**Look"):
            assert word in text, (page.name, word)
