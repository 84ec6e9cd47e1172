"""Figures: their verdicts, their lines, and their place in the page."""

import pytest

from benchmarks.figures import (
    BEGIN,
    END,
    HEAD,
    Figure,
    dropped,
    merged,
    milliseconds,
    ratio,
)

HERE = "Measured on 2 cores of a machine, wrk 4.1.0."
ORDER = ["hits", "misses"]


@pytest.mark.parametrize(
    ("figure", "is_met", "is_aim_met"),
    [
        (Figure(what="w", samples=[1, 9, 3], at_most=3, aim=2), True, False),
        (Figure(what="w", samples=[1, 9, 4], at_most=3, aim=2), False, False),
        (Figure(what="w", samples=[1, 9, 2], at_most=3, aim=2), True, True),
        (Figure(what="w", samples=[1, 9, 3], at_least=3, aim=4), True, False),
        (Figure(what="w", samples=[1, 9, 2], at_least=3, aim=4), False, False),
        (Figure(what="w", samples=[1, 9, 4], at_least=3, aim=4), True, True),
        (Figure(what="w", samples=[1, 1, 1], exactly=1), True, True),
        (Figure(what="w", samples=[1, 1, 2], exactly=1), False, True),
        (Figure(what="w", samples=[5]), True, True),
    ],
)
def test_figure_is_compared_with_its_bound_and_its_aim(
    figure: Figure, is_met: bool, is_aim_met: bool
) -> None:
    """The median is compared with a bound, and every round with an exact number."""
    assert (figure.is_met, figure.is_aim_met) == (is_met, is_aim_met)


def test_line_shows_both_verdicts() -> None:
    """A reader of the table sees the bound beside the figure."""
    figure = ratio("ours against theirs", [2, 3], [1, 1], at_least=2, aim=4)

    line = figure.render("hits")

    assert line == (
        "| `hits` | ours against theirs | 2.5 x | 2 x to 3 x"
        " | at least 2 x: met | 4 x: not yet |"
    )
    assert line.count("|") == HEAD.splitlines()[0].count("|")


def test_line_marks_a_missed_bound() -> None:
    figure = milliseconds("p99", [0.0061], at_most=5, aim=2)

    line = figure.render("hits")

    assert (
        "| 6.1 ms | 6.1 ms to 6.1 ms | at most 5 ms: **missed** | 2 ms: not yet |"
        in (line)
    )


def test_line_without_samples_has_its_note_in_one_row() -> None:
    """A server's output may have line breaks and bars, which would end the table."""
    figure = Figure(what="varnish", note="its output: a | b\nc")

    line = figure.render("hits")

    assert line == "| `hits` | varnish | its output: a / b c | | | |"


def test_ratio_is_taken_round_by_round() -> None:
    """So that a slow minute of the machine affects both sides."""
    figure = ratio("ours against theirs", [10, 40], [10, 20])

    assert figure.samples == [1, 2]


def test_measured_row_replaces_only_its_own_old_lines() -> None:
    page = merge(a_page())

    assert page.startswith("# Before\n") and page.endswith("\nAfter\n")
    assert "| `hits` | old |" in page
    assert "| `misses` | old |" not in page
    assert page.index("`hits`") < page.index("| `misses` | new | 2 |")


@pytest.mark.parametrize(
    ("here", "head"),
    [("Measured on another machine.", HEAD), (HERE, "| row | what |\n|---|---|")],
)
def test_lines_of_another_machine_or_table_are_dropped(here: str, head: str) -> None:
    """Figures of two machines in one table would be compared."""
    page = merge(a_page(head), here=here)

    assert "| old |" not in page
    assert here in page and HEAD in page


@pytest.mark.parametrize(
    ("here", "head", "measured", "lost"),
    [
        (HERE, HEAD, ["misses"], []),
        ("Measured on another machine.", HEAD, ["misses"], ["hits"]),
        ("Measured on another machine.", HEAD, ["misses", "hits"], []),
        (HERE, "| row | what |\n|---|---|", [], ["hits", "misses"]),
    ],
)
def test_dropped_names_the_rows_that_would_be_lost(
    here: str, head: str, measured: list[str], lost: list[str]
) -> None:
    """One row measured elsewhere must not delete the others."""
    assert dropped(a_page(head), measured, here=here) == lost


@pytest.mark.parametrize(
    ("here", "picture", "shown"),
    [
        (HERE, None, ["![old](performance.svg)"]),
        ("Measured on another machine.", None, []),
        (HERE, "![new](performance.svg)", ["![new](performance.svg)"]),
        (HERE, "", []),
    ],
)
def test_picture_stays_as_long_as_its_rows(
    here: str, picture: str | None, shown: list[str]
) -> None:
    page = merge(a_page(), here=here, picture=picture)

    assert [line for line in page.splitlines() if line.startswith("!")] == shown
    assert f"\n\n{HEAD}\n" in page


def merge(page: str, here: str = HERE, picture: str | None = None) -> str:
    """Return *page* after the misses have been measured again."""
    measured = {"misses": [Figure(what="new", samples=[2])]}
    return merged(page, measured, ORDER, here=here, picture=picture)


def a_page(head: str = HEAD) -> str:
    """Return a page with a picture and one line of each row."""
    old = [Figure(what="old", samples=[1]).render(row) for row in ORDER]
    block = [BEGIN, HERE, "", "![old](performance.svg)\n", head, *old, END]
    return "\n".join(["# Before", *block, "After", ""])
