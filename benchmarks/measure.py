"""The figures of docs/performance.md: measures the rows and writes their lines.

    make bench
    make bench ROWS="stampede misses"

Everything is on this machine, and only ratios within one row mean anything elsewhere.
"""

from __future__ import annotations

import argparse
import signal
import sys

import figures
from rows import ROWS


def main() -> None:
    wanted = _parser().parse_args().row or list(ROWS)
    # So that an end from outside, too, ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    measured = {}
    print(figures.HEAD, flush=True)
    for name in wanted:
        measured[name] = ROWS[name]()
        for figure in measured[name]:
            print(figure.render(name), flush=True)
    figures.write(measured, list(ROWS))


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:24}{row.__doc__}" for name, row in ROWS.items())
    parser = argparse.ArgumentParser(
        description=f"Measure rows, by default all:\n\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("row", nargs="*", choices=[*ROWS, []], metavar="ROW")
    return parser


if __name__ == "__main__":
    main()
