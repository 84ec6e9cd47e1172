"""The plot of the hits: bars in proportion to the figures."""

from xml.etree import ElementTree

from benchmarks.plot import drawn

RATES = {
    "nginx": [100.0, 200.0, 100.0],
    "profile-proxy": [150.0, 400.0, 100.0],
    "cache.get <slow>": [1.0, 2.0, 1.0],
}


def bars(plot: str) -> dict[str, tuple[float, str]]:
    """Return each bar's length and class, by the name before it."""
    found, name = {}, ""
    for element in ElementTree.fromstring(plot):
        kind = element.tag.rpartition("}")[2]
        if kind == "text" and element.get("text-anchor") == "end":
            name = element.text or ""
        elif kind == "rect" and element.get("class") != "paper":
            length, css_class = element.get("width"), element.get("class")
            assert length and css_class
            found[name] = float(length), css_class
    return found


def test_bars_are_in_proportion_and_best_first_with_ours_marked() -> None:
    """They are linear from zero, by the median of the rounds."""
    drawn_bars = bars(drawn(RATES))

    lengths = {name: length for name, (length, _) in drawn_bars.items()}
    assert list(lengths) == ["profile-proxy", "nginx", "cache.get <slow>"]
    assert round(lengths["profile-proxy"] / lengths["nginx"], 2) == 1.5
    assert round(lengths["cache.get <slow>"] / lengths["nginx"], 2) == 0.01
    assert [
        name for name, (_, css_class) in drawn_bars.items() if css_class == "ours"
    ] == ["profile-proxy"]


def test_texts_are_inside_the_plot() -> None:
    """The longest thin line leaves room for the number after it."""
    plot = ElementTree.fromstring(drawn(RATES))

    _, _, width, height = map(float, plot.attrib["viewBox"].split())

    for text in plot.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 < float(text.attrib["x"]) < width - 60
        assert 0 < float(text.attrib["y"]) < height


def test_plot_has_a_description_with_every_number() -> None:
    plot = ElementTree.fromstring(drawn(RATES))

    described = plot.findtext("{http://www.w3.org/2000/svg}desc")

    assert plot.attrib["role"] == "img"
    assert (
        described == "profile-proxy: 1.50 x; nginx: 1.00 x; cache.get <slow>: 0.010 x."
    )
