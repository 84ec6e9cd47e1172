"""What a figure says of itself, and how the page takes it in."""

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
def test_a_figure_is_held_against_what_must_be_and_against_the_aim(
    figure: Figure, is_met: bool, is_aim_met: bool
) -> None:
    """A bound by the median, from its own side; an exact number by every round."""
    assert (figure.is_met, figure.is_aim_met) == (is_met, is_aim_met)


def test_a_line_shows_both_verdicts() -> None:
    """Who reads the table sees what was wanted beside what was reached."""
    figure = ratio("ours against theirs", [2, 3], [1, 1], at_least=2, aim=4)

    line = figure.render("hits")

    assert line == (
        "| `hits` | ours against theirs | 2.5 x | 2 x to 3 x"
        " | at least 2 x: met | 4 x: not yet |"
    )
    assert line.count("|") == HEAD.splitlines()[0].count("|")


def test_a_line_says_that_what_must_be_was_missed() -> None:
    figure = milliseconds("p99", [0.0061], at_most=5, aim=2)

    line = figure.render("hits")

    assert (
        "| 6.1 ms | 6.1 ms to 6.1 ms | at most 5 ms: **missed** | 2 ms: not yet |"
        in (line)
    )


def test_a_figure_without_samples_says_why_in_one_line() -> None:
    """A server's last words may have lines and bars, which would end the table."""
    figure = Figure(what="varnish", note="it said: a | b\nc")

    line = figure.render("hits")

    assert line == "| `hits` | varnish | it said: a / b c | | | |"


def test_a_ratio_is_taken_round_by_round() -> None:
    """So that a slow minute of the machine meets both sides of it."""
    figure = ratio("ours against theirs", [10, 40], [10, 20])

    assert figure.samples == [1, 2]


def test_what_was_measured_takes_the_place_of_its_old_lines_alone() -> None:
    page = merge(a_page())

    assert page.startswith("# Before\n") and page.endswith("\nAfter\n")
    assert "| `hits` | old |" in page
    assert "| `misses` | old |" not in page
    assert page.index("`hits`") < page.index("| `misses` | new | 2 |")


@pytest.mark.parametrize(
    ("here", "head"),
    [("Measured on another machine.", HEAD), (HERE, "| row | what |\n|---|---|")],
)
def test_lines_of_another_machine_or_shape_do_not_stay(here: str, head: str) -> None:
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
def test_it_is_known_which_rows_would_go(
    here: str, head: str, measured: list[str], lost: list[str]
) -> None:
    """Whoever repeats one row elsewhere must not lose the others for it."""
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
def test_the_picture_stays_as_long_as_what_it_shows(
    here: str, picture: str | None, shown: list[str]
) -> None:
    page = merge(a_page(), here=here, picture=picture)

    assert [line for line in page.splitlines() if line.startswith("!")] == shown
    assert f"\n\n{HEAD}\n" in page


def merge(page: str, here: str = HERE, picture: str | None = None) -> str:
    """*page* after the misses have been measured anew."""
    measured = {"misses": [Figure(what="new", samples=[2])]}
    return merged(page, measured, ORDER, here=here, picture=picture)


def a_page(head: str = HEAD) -> str:
    """With a line of each row, under a picture of them."""
    old = [Figure(what="old", samples=[1]).render(row) for row in ORDER]
    block = [BEGIN, HERE, "", "![old](performance.svg)\n", head, *old, END]
    return "\n".join(["# Before", *block, "After", ""])
