"""The figures of a row, and their table in docs/performance.md."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.children import CORES, Missing, find
from proxy.embedded import engine

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- measured: make bench -->", "<!-- end of measured -->"
HEAD = "| row | what | median | min to max | must | aim |\n|---|---|---|---|---|---|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table: *samples*, one of each round, in *unit*.

    Their median is compared with *at_most* or *at_least*, each of them with
    *exactly*. The *aim* is beyond that bound, on the same side. The *note* of a
    figure without samples gives the reason. *plotted_as* is its name in
    docs/performance.svg, if it is there.
    """

    what: str
    samples: Sequence[float] = ()
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    exactly: float | None = None
    aim: float | None = None
    note: str = ""
    plotted_as: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the figure is within its bound; true without a bound."""
        if self.exactly is not None:
            return all(sample == self.exactly for sample in self.samples)
        bound = self.at_least if self.at_most is None else self.at_most
        return bound is None or self._is_within(bound)

    @property
    def is_aim_met(self) -> bool:
        return self.aim is None or self._is_within(self.aim)

    def render(self, row: str) -> str:
        if not self.samples:
            note = " ".join(self.note.replace("|", "/").split())
            return f"| `{row}` | {self.what} | {note} | | | |"
        median = self._format(statistics.median(self.samples))
        spread = (
            f"{self._format(min(self.samples))} to {self._format(max(self.samples))}"
        )
        verdicts = f"{self._must()} | {self._aim()}"
        return f"| `{row}` | {self.what} | {median} | {spread} | {verdicts} |"

    def _is_within(self, bound: float) -> bool:
        median = statistics.median(self.samples)
        return median >= bound if self.at_most is None else median <= bound

    def _must(self) -> str:
        verdict = "met" if self.is_met else "**missed**"
        if self.exactly is not None:
            return f"{self._format(self.exactly)}: {verdict}"
        if self.at_most is not None:
            return f"at most {self._format(self.at_most)}: {verdict}"
        if self.at_least is not None:
            return f"at least {self._format(self.at_least)}: {verdict}"
        return ""

    def _aim(self) -> str:
        if self.aim is None:
            return ""
        return f"{self._format(self.aim)}: {'met' if self.is_aim_met else 'not yet'}"

    def _format(self, value: float) -> str:
        text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        return f"{text} {self.unit}".strip()


def milliseconds(
    what: str,
    seconds: Sequence[float],
    *,
    at_most: float | None = None,
    aim: float | None = None,
) -> Figure:
    """Return a figure of durations; *at_most* and *aim* are in milliseconds."""
    samples = [1000 * value for value in seconds]
    return Figure(what=what, samples=samples, unit="ms", at_most=at_most, aim=aim)


def ratio(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    aim: float | None = None,
) -> Figure:
    """Return a figure of *ours* divided by *theirs*, round by round."""
    return Figure(
        what=what,
        samples=[mine / other for mine, other in zip(ours, theirs, strict=True)],
        unit="x",
        at_most=at_most,
        at_least=at_least,
        aim=aim,
    )


def write(
    measured: Mapping[str, Sequence[Figure]],
    order: Sequence[str],
    *,
    picture: str | None,
) -> None:
    """Write the *measured* rows into docs/performance.md."""
    page = PAGE.read_text()
    PAGE.write_text(merged(page, measured, order, here=machine(), picture=picture))


def of_elsewhere(measured: Collection[str]) -> list[str]:
    """Return the rows of docs/performance.md that `write` would drop."""
    return dropped(PAGE.read_text(), measured, here=machine())


def dropped(page: str, measured: Collection[str], *, here: str) -> list[str]:
    """Return the rows of *page* that are neither *measured* nor from *here*."""
    old = page.partition(BEGIN)[2].partition(END)[0]
    return [] if _stays(old, here) else sorted(_lines(old).keys() - set(measured))


def merged(
    page: str,
    measured: Mapping[str, Sequence[Figure]],
    order: Sequence[str],
    *,
    here: str,
    picture: str | None,
) -> str:
    """Return *page* with the *measured* rows in place of their old lines.

    The other rows stay if they were measured *here* and with these versions. So
    does the picture above them, unless *picture* replaces or removes it (``""``).
    """
    before, _, rest = page.partition(BEGIN)
    old, _, after = rest.partition(END)
    stays = _stays(old, here)
    lines = _lines(old) if stays else {}
    lines |= {row: _rendered(row, figures) for row, figures in measured.items()}
    table = [line for row in order for line in lines.get(row, [])]
    if picture is None:
        shown = re.findall(r"^!\[.*$", old, re.MULTILINE) if stays else []
    else:
        shown = [picture] if picture else []
    block = [BEGIN, here, "", *(f"{line}\n" for line in shown), HEAD, *table, END]
    return before + "\n".join(block) + after


def _stays(old: str, here: str) -> bool:
    """Whether the *old* figures were measured *here*, in a table of this form."""
    return here in old and HEAD in old


def _rendered(row: str, figures: Sequence[Figure]) -> list[str]:
    return [figure.render(row) for figure in figures]


def _lines(table: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in table.splitlines():
        if name := re.match(r"\| `(\w+)` \|", line):
            found.setdefault(name[1], []).append(line)
    return found


def machine() -> str:
    """Describe the machine, its programs and our privilege, in one paragraph."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpu)
    parts = [
        f"{len(CORES)} cores of {model[1] if model else platform.machine()}",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        *(f"{name} {_version_of(name)}" for name in _LIBRARIES),
        f"the engine {_version_printed_by(str(engine.find_binary()), '--version')}",
        *(
            f"{name} {_version_printed_by(name, flag)}"
            for name, flag in _SERVERS.items()
        ),
        f"thread priority {'permitted' if may_raise_priority() else 'not permitted'}",
    ]
    return "Measured on " + ", ".join(parts) + "."


def may_raise_priority() -> bool:
    """Whether a worker's network thread can get niceness -10.

    It needs root or a ulimit, and makes a difference of about an eighth in hits.
    """
    code = "import os; os.setpriority(os.PRIO_PROCESS, 0, -10)"
    tried = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    return tried.returncode == 0


_LIBRARIES = (
    "flask",
    "flask-caching",
    "granian",
    "gunicorn",
    "redis",
    "requests-cache",
)
_SERVERS = {"redis-server": "--version", "varnishd": "-V", "nginx": "-v", "wrk": "-v"}


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"


def _version_printed_by(program: str, flag: str) -> str:
    """Return the first version number that *program* prints."""
    try:
        command = [find(program, ""), flag]
    except Missing:
        return "missing"
    run = subprocess.run(command, capture_output=True, text=True, timeout=10)
    number = re.search(r"\d+\.\d+(\.\d+)?", run.stdout + run.stderr)
    return number[0] if number else os.path.basename(program)
