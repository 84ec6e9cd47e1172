"""docs/performance.svg: the hits of each contender as bars, beside nginx's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

PLOT = Path(__file__).parent.parent / "docs" / "performance.svg"
BASE, OURS = "nginx", "profile-proxy"

WIDTH, LEFT, RIGHT = 760, 270, 90
TOP, STEP, BAR = 64, 34, 20
TITLE = "Cache hits a second on one core, as multiples of nginx's"

_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" \
aria-labelledby="title desc">
<title id="title">{title}</title>
<desc id="desc">{desc}</desc>
<style>
  svg {{ font: 14px system-ui, sans-serif }}
  .paper {{ fill: #ffffff }} .text {{ fill: #1f2328 }} .faint {{ fill: #59636e }}
  .theirs {{ fill: #b6bfc9 }} .ours {{ fill: #0969da }}
  .line {{ stroke: #1f2328; fill: none }}
  @media (prefers-color-scheme: dark) {{
    .paper {{ fill: #0d1117 }} .text {{ fill: #f0f6fc }} .faint {{ fill: #9198a1 }}
    .theirs {{ fill: #59636e }} .ours {{ fill: #4493f8 }} .line {{ stroke: #f0f6fc }}
  }}
</style>
<rect class="paper" width="{width}" height="{height}"/>
<text class="text" x="16" y="26" font-weight="600">{title}</text>
<text class="faint" x="16" y="46" font-size="12">{how}</text>
<path class="line" stroke-dasharray="3 3" d="M{one:.1f} {top}V{bottom}"/>
{bars}
</svg>
"""

_BAR = """\
<text class="text" x="{label_at}" y="{text_at}" text-anchor="end">{name}</text>
<rect class="{kind}" x="{left}" y="{top}" width="{length:.1f}" height="{bar}"/>
<path class="line" d="M{low:.1f} {middle}H{high:.1f}"/>
<text class="text" x="{value_at:.1f}" y="{text_at}">{value}</text>"""


def write(rates: Mapping[str, Sequence[float]]) -> None:
    """Draw *rates*, hits a second by contender and round, into docs/performance.svg."""
    PLOT.write_text(drawn(rates))


def drawn(rates: Mapping[str, Sequence[float]]) -> str:
    """Return the plot of *rates*, which must contain nginx's.

    The scale is linear and begins at zero, so that lengths are in proportion. A thin
    line goes from the least round to the greatest.
    """
    ratios = {
        name: [mine / base for mine, base in zip(rates[name], rates[BASE], strict=True)]
        for name in rates
    }
    medians = {name: statistics.median(samples) for name, samples in ratios.items()}
    best_first = sorted(medians, key=lambda name: -medians[name])
    scale = (WIDTH - LEFT - RIGHT) / max(map(max, ratios.values()))
    rounds = len(rates[BASE])
    return _SVG.format(
        width=WIDTH,
        height=TOP + STEP * len(ratios) + 8,
        title=TITLE,
        desc=escape(
            "; ".join(f"{name}: {_format(medians[name])}" for name in best_first) + "."
        ),
        how=f"Median of {rounds} rounds; the thin line: least to greatest",
        bars="\n".join(
            _bar(name, ratios[name], number, scale)
            for number, name in enumerate(best_first)
        ),
        one=LEFT + scale,
        top=TOP - 4,
        bottom=TOP + STEP * len(ratios),
    )


def _bar(name: str, ratios: Sequence[float], number: int, scale: float) -> str:
    median, top = statistics.median(ratios), TOP + STEP * number
    return _BAR.format(
        name=escape(name),
        kind="ours" if name.startswith(OURS) else "theirs",
        label_at=LEFT - 10,
        left=LEFT,
        top=top,
        bar=BAR,
        length=scale * median,
        low=LEFT + scale * min(ratios),
        high=LEFT + scale * max(ratios),
        middle=top + BAR // 2,
        text_at=top + BAR // 2 + 5,
        value_at=LEFT + scale * max(ratios) + 8,
        value=_format(median),
    )


def _format(ratio: float) -> str:
    return f"{ratio:.2f} x" if ratio >= 0.1 else f"{ratio:.3f} x"
