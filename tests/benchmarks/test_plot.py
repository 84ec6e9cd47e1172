"""The plot of the hits: bars as long as what they stand for."""

from xml.etree import ElementTree

from benchmarks.plot import drawn

RATES = {
    "nginx": [100.0, 200.0, 100.0],
    "profile-proxy": [150.0, 400.0, 100.0],
    "cache.get <slow>": [1.0, 2.0, 1.0],
}


def bars(plot: str) -> dict[str, tuple[float, str]]:
    """Each bar's length and class, by the name that stands before it."""
    found, name = {}, ""
    for element in ElementTree.fromstring(plot):
        kind = element.tag.rpartition("}")[2]
        if kind == "text" and element.get("text-anchor") == "end":
            name = element.text or ""
        elif kind == "rect" and element.get("class") != "paper":
            length, whose = element.get("width"), element.get("class")
            assert length and whose
            found[name] = float(length), whose
    return found


def test_bars_are_in_proportion_best_first_and_ours_stand_out() -> None:
    """From zero and linear, by the median of what each round says."""
    drawn_bars = bars(drawn(RATES))

    lengths = {name: length for name, (length, _) in drawn_bars.items()}
    assert list(lengths) == ["profile-proxy", "nginx", "cache.get <slow>"]
    assert round(lengths["profile-proxy"] / lengths["nginx"], 2) == 1.5
    assert round(lengths["cache.get <slow>"] / lengths["nginx"], 2) == 0.01
    assert [name for name, (_, whose) in drawn_bars.items() if whose == "ours"] == [
        "profile-proxy"
    ]


def test_nothing_is_drawn_outside_of_the_plot() -> None:
    """The longest thin line leaves room for the number behind it."""
    plot = ElementTree.fromstring(drawn(RATES))

    _, _, width, height = map(float, plot.attrib["viewBox"].split())

    for text in plot.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 < float(text.attrib["x"]) < width - 60
        assert 0 < float(text.attrib["y"]) < height


def test_who_cannot_see_the_plot_is_told_every_number() -> None:
    plot = ElementTree.fromstring(drawn(RATES))

    described = plot.findtext("{http://www.w3.org/2000/svg}desc")

    assert plot.attrib["role"] == "img"
    assert (
        described == "profile-proxy: 1.50 x; nginx: 1.00 x; cache.get <slow>: 0.010 x."
    )
