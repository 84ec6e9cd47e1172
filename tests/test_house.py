"""Rules for the code itself: names, lengths, and the map in docs/architecture.md."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
CODE = [
    file
    for folder in ("proxy", "tests", "benchmarks")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if file != Path(__file__)
]
PRODUCT = [file for file in CODE if file.is_relative_to(ROOT / "proxy")]
TREES = {file: ast.parse(file.read_text()) for file in CODE}

GONE = {
    *("HitPath", "HitsFirst", "Doorkeeper", "Reach", "Trip", "Crew", "Tally"),
    *("Passage", "Rendition", "StoredOutcome", "Loading", "noted", "hear_from"),
    *("outlast_copies", "run_lasting", "give_up_at", "turn_newcomers_away"),
}
"""Private words that the field's words have replaced."""

GONE_FUNCTIONS = {"nobody"}

GONE_MODULES = {
    *("hitpath", "crew", "newcomers", "faster_granian"),
    *("reach", "stored_form", "watched", "moments"),
}

LONGEST_MODULE = 400
LONGEST_FUNCTION = 90

MEDIAN_LENGTH, P90_LENGTH = 8, 23


def names_in(tree: ast.AST) -> Iterator[str]:
    """Yield every identifier in *tree*, also those in f-strings and imports."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield from value.split(".")
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names


def functions_in(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count its lines, with the docstring and without decorators."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def section(heading: str) -> str:
    """Return the text under a heading of docs/architecture.md, up to the next one."""
    _, found, rest = ARCHITECTURE.partition(f"\n## {heading}\n")
    assert found, f"docs/architecture.md has no section {heading!r}"
    return rest.partition("\n## ")[0]


def test_replaced_names_are_not_used_again() -> None:
    """Neither as an identifier nor, for some, as the name of a function."""
    found = {
        f"{file.relative_to(ROOT)}: {name}"
        for file, tree in TREES.items()
        for name in (
            GONE.intersection(names_in(tree))
            | GONE_FUNCTIONS.intersection(f.name for f in functions_in(tree))
        )
    }

    assert found == set()


def test_replaced_module_names_are_not_used_again() -> None:
    """In no package."""
    found = {str(f.relative_to(ROOT)) for f in CODE if f.stem in GONE_MODULES}

    assert found == set()


def test_no_module_is_longer_than_400_lines() -> None:
    """A longer one has two reasons to change."""
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for file in PRODUCT
    }

    assert {name: n for name, n in lengths.items() if n > LONGEST_MODULE} == {}


def test_no_function_is_longer_than_90_lines() -> None:
    """With its docstring and its nested functions."""
    lengths = {
        f"{file.relative_to(ROOT)}: {function.name}": lines_of(function)
        for file in PRODUCT
        for function in functions_in(TREES[file])
    }

    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


def test_most_functions_are_short() -> None:
    """Half have at most 8 lines, and nine tenths at most 23."""
    lengths = [
        lines_of(function) for file in PRODUCT for function in functions_in(TREES[file])
    ]

    assert statistics.median(lengths) <= MEDIAN_LENGTH
    assert statistics.quantiles(lengths, n=10)[-1] <= P90_LENGTH


def test_every_wall_is_a_contract_of_its_name() -> None:
    """docs/architecture.md lists exactly the contracts in setup.cfg."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    contracts = [
        config[name]["name"]
        for name in config.sections()
        if name.startswith("importlinter:contract:")
    ]
    walls = re.findall(r"^- (.+)$", section("Walls"), re.MULTILINE)

    assert sorted(walls) == sorted(contracts)


def test_glossary_has_at_most_25_words() -> None:
    """A longer one is not read."""
    rows = re.findall(r"^\| ([^|]+) \|", section("Glossary"), re.MULTILINE)
    words = [word for row in rows[1:] for word in row.split(",")]

    assert 10 <= len(words) <= 25


def test_map_names_every_package_and_module() -> None:
    """Of the first level of proxy/."""
    found = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "proxy").iterdir()
        if (path / "__init__.py").exists() or path.suffix == ".py"
    } - {"__init__.py"}

    assert {name for name in found if name not in section("The map")} == set()


def test_every_question_of_a_newcomer_leads_to_one_file() -> None:
    """The table has each question once, and each file in it exists."""
    rows = re.findall(
        r"^\| ([^|`]+) \| `([^`]+)` \|$", section("Where is ...?"), re.MULTILINE
    )
    questions = [question for question, _ in rows]

    assert len(questions) == len(set(questions)) >= 10
    assert [file for _, file in rows if not (ROOT / file).is_file()] == []
