"""Measure the rows of docs/performance.md, and write their lines.

    make bench
    make bench ROWS="stampede misses"
    make bench-quick

Everything runs on this machine; only ratios within one row are valid elsewhere.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from benchmarks import figures, plot
from benchmarks.children import Failed, Missing
from benchmarks.figures import Figure
from benchmarks.flush import flush
from benchmarks.hits import batches, hits, pictures, refusals, two_workers, zipf
from benchmarks.memory import redis_memory, worker_memory
from benchmarks.misses import cold_batch, misses, stampede, waiters
from benchmarks.rounds import QUICK, THOROUGH, Pace
from benchmarks.trouble import hits_while_misses_hang, sigterm, stalled_clients

ROWS: dict[str, Callable[[Pace], list[Figure]]] = {
    row.__name__: row
    for row in (
        hits,
        refusals,
        batches,
        pictures,
        zipf,
        hits_while_misses_hang,
        misses,
        cold_batch,
        stampede,
        sigterm,
        stalled_clients,
        redis_memory,
        two_workers,
        flush,
        worker_memory,
        waiters,
    )
}
"""Every row by its name, in the order of the table."""

QUICK_ROWS = ("hits", "refusals", "hits_while_misses_hang", "misses", "stampede")
"""The rows that a change of the code is most likely to affect."""


def main() -> None:
    options = _parser().parse_args()
    wanted = options.row or (QUICK_ROWS if options.quick else ROWS)
    # SIGTERM must run the context managers, which end the started processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    measured = {}
    print(figures.HEAD, flush=True)
    for name in wanted:
        measured[name] = _measure(name, QUICK if options.quick else THOROUGH)
        for figure in measured[name]:
            print(figure.render(name), flush=True)
    if options.quick:
        return
    if others := figures.of_elsewhere(measured):
        print(
            f"\ndocs/performance.md is unchanged: its {', '.join(others)} are from"
            " another machine, privilege or version. To replace all rows: make bench",
            file=sys.stderr,
        )
    else:
        picture = _draw(measured["hits"]) if "hits" in measured else None
        figures.write(measured, list(ROWS), picture=picture)


def _draw(hits_measured: list[Figure]) -> str:
    """Draw the hits, if nginx was measured; return the Markdown of the picture."""
    rates = {f.plotted_as: f.samples for f in hits_measured if f.plotted_as}
    if plot.BASE not in rates:
        return ""
    plot.write(rates)
    return f"![{plot.TITLE}]({plot.PLOT.name})"


def _measure(name: str, pace: Pace) -> list[Figure]:
    """Return a row's figures, or one that gives the reason for their absence."""
    try:
        return ROWS[name](pace)
    except Missing as missing:
        return [Figure(what="the whole row", note=str(missing))]
    except Failed as failed:
        return [Figure(what="the whole row", note=f"**failed**: {failed}")]


def _row(name: str) -> str:
    if name not in ROWS:
        raise argparse.ArgumentTypeError(
            f"{name} is not a row; the rows, with a space between: {' '.join(ROWS)}"
        )
    return name


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:24}{row.__doc__}" for name, row in ROWS.items())
    parser = argparse.ArgumentParser(
        description=f"Measure rows, by default all:\n\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("row", nargs="*", type=_row, metavar="ROW")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer rows and rounds, within two minutes; prints them only",
    )
    return parser


if __name__ == "__main__":
    main()
