"""What a row has measured, and the table that docs/performance.md shows of it."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from contenders import CORES, Missing, find

from proxy.cache import engine

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- measured: make bench -->", "<!-- end of measured -->"
HEAD = "| row | what | median | min to max | must |\n|---|---|---|---|---|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table: *samples*, one of each round, in *unit*.

    Held against *at_most* by their median, against *exactly* by every one. A
    figure without samples says in *note* why it has none.
    """

    what: str
    samples: Sequence[float] = ()
    unit: str = ""
    at_most: float | None = None
    exactly: float | None = None
    note: str = ""

    @property
    def is_met(self) -> bool:
        """Whether what must be is; true also where nothing must be."""
        if self.exactly is not None:
            return all(sample == self.exactly for sample in self.samples)
        return self.at_most is None or statistics.median(self.samples) <= self.at_most

    def render(self, row: str) -> str:
        if not self.samples:
            return f"| `{row}` | {self.what} | {self.note} | | |"
        median = self._say(statistics.median(self.samples))
        spread = f"{self._say(min(self.samples))} to {self._say(max(self.samples))}"
        return f"| `{row}` | {self.what} | {median} | {spread} | {self._must()} |"

    def _must(self) -> str:
        verdict = "met" if self.is_met else "**missed**"
        if self.exactly is not None:
            return f"{self._say(self.exactly)}: {verdict}"
        if self.at_most is not None:
            return f"at most {self._say(self.at_most)}: {verdict}"
        return ""

    def _say(self, value: float) -> str:
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        return f"{text} {self.unit}".strip()


def milliseconds(
    what: str, seconds: Sequence[float], *, at_most: float | None = None
) -> Figure:
    """A figure of durations; *at_most* is in milliseconds."""
    samples = [1000 * value for value in seconds]
    return Figure(what=what, samples=samples, unit="ms", at_most=at_most)


def ratio(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    at_most: float | None = None,
) -> Figure:
    """A figure of ours over theirs, round by round."""
    pairs = zip(ours, theirs, strict=True)
    samples = [mine / other for mine, other in pairs]
    return Figure(what=what, samples=samples, unit="x", at_most=at_most)


def write(measured: Mapping[str, Sequence[Figure]], order: Sequence[str]) -> None:
    """Put what was measured into the page, in place of these rows' old lines.

    The other rows stay, if they were measured here and with these versions.
    """
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    here = machine()
    lines = _lines(old) if here in old else {}
    lines |= {row: _rendered(row, figures) for row, figures in measured.items()}
    table = [line for row in order for line in lines.get(row, [])]
    block = "\n".join([BEGIN, here, "", HEAD, *table, END])
    PAGE.write_text(before + block + after)


def _rendered(row: str, figures: Sequence[Figure]) -> list[str]:
    return [figure.render(row) for figure in figures]


def _lines(table: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in table.splitlines():
        if name := re.match(r"\| `(\w+)` \|", line):
            found.setdefault(name[1], []).append(line)
    return found


def machine() -> str:
    """What it was measured on and with, in one paragraph."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpu)
    parts = [
        f"{len(CORES)} cores of {model[1] if model else platform.machine()}",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        *(f"{name} {_version_of(name)}" for name in ("flask", "granian", "gunicorn")),
        f"the engine {_asked(str(engine.find_binary()), '--version')}",
        *(f"{name} {_asked(name, flag)}" for name, flag in _SERVERS.items()),
    ]
    return "Measured on " + ", ".join(parts) + "."


_SERVERS = {"varnishd": "-V", "nginx": "-v"}


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"


def _asked(program: str, flag: str) -> str:
    """The first version number that *program* says of itself."""
    try:
        command = [find(program, ""), flag]
    except Missing:
        return "missing"
    said = subprocess.run(command, capture_output=True, text=True, timeout=10)
    number = re.search(r"\d+\.\d+(\.\d+)?", said.stdout + said.stderr)
    return number[0] if number else os.path.basename(program)
