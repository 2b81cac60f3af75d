"""Plots as SVG: small files, readable on a light and on a dark page. Pure.

Colours are chosen by the reader's setting inside of the picture, since a page cannot style a picture that it embeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.figures import Goal, Spread

_STYLE = """\
text { font: 12px sans-serif; fill: #24292f } .dim { fill: #57606a }
.rule { stroke: #8c959f } .grid { stroke: #d0d7de } .goal { stroke: #24292f; stroke-width: 2 }
.range { stroke: #24292f; stroke-width: 1.5 } .line { fill: none; stroke-width: 2 }
.met { fill: #1f883d } .missed { fill: #cf222e } .plain { fill: #6e7781 }
.s0 { fill: #bc4c00; stroke: #bc4c00 } .s1 { fill: #0969da; stroke: #0969da }
.s2 { fill: #1a7f37; stroke: #1a7f37 } .s3 { fill: #8250df; stroke: #8250df }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .dim { fill: #9198a1 }
.rule { stroke: #6e7681 } .grid { stroke: #30363d } .goal, .range { stroke: #e6edf3 }
.met { fill: #3fb950 } .missed { fill: #f85149 } .plain { fill: #8b949e }
.s0 { fill: #f0883e; stroke: #f0883e } .s1 { fill: #58a6ff; stroke: #58a6ff }
.s2 { fill: #3fb950; stroke: #3fb950 } .s3 { fill: #bc8cff; stroke: #bc8cff }
}"""

_SERIES = 4
"""As many as there are colours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A ratio, with its lowest and highest round, and what it is to be."""

    name: str
    value: Spread
    goal: Goal | None

    @property
    def style(self) -> str:
        if self.goal is None:
            return "plain"
        return "met" if self.goal.met(self.value.median) else "missed"


def ratios(title: str, caption: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars with a rule at one; a stroke shows each goal."""
    left, width, row = 380, 800, 22
    top = 44
    most = max(1.5, *(bar.value.median * 1.1 for bar in bars), *(bar.goal.value for bar in bars if bar.goal))
    scale = (width - left - 60) / most
    height = top + row * len(bars) + 26
    parts = [f'<text x="0" y="16" font-weight="bold">{escape(title)}</text>']
    for tick in _ticks(most):
        x = left + tick * scale
        rule = "rule" if tick == 1 else "grid"
        parts.append(f'<line class="{rule}" x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{height - 20}"/>')
        parts.append(f'<text class="dim" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{tick:g}</text>')
    for index, bar in enumerate(bars):
        y = top + row * index
        parts += _bar(bar, left, y, scale, limit=width - 60)
    parts.append(f'<text class="dim" x="0" y="32">{escape(caption)}</text>')
    return _svg(width, height, parts)


def _bar(bar: Bar, left: float, y: float, scale: float, *, limit: float) -> list[str]:
    value = bar.value
    end = left + value.median * scale
    stroke = left + bar.goal.value * scale if bar.goal is not None else end
    lowest, highest = (min(limit, left + bound * scale) for bound in (value.lowest, value.highest))
    parts = [
        f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(bar.name)}</text>',
        f'<rect class="{bar.style}" x="{left}" y="{y + 2}" width="{end - left:.1f}" height="13" rx="2"/>',
        f'<line class="range" x1="{lowest:.1f}" y1="{y + 8.5}" x2="{highest:.1f}" y2="{y + 8.5}"/>',
        f'<text class="dim" x="{max(end, highest, stroke) + 6:.1f}" y="{y + 12}">{value.median:.2f}</text>',
    ]
    if bar.goal is not None:
        parts.append(f'<line class="goal" x1="{stroke:.1f}" y1="{y}" x2="{stroke:.1f}" y2="{y + 17}"/>')
    return parts


def curves(title: str, x_title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Points joined by lines, both axes logarithmic. Series by their label; points are ``(x, y)``, all above zero.

    :raises ValueError: without points, or with more series than there are colours.
    """
    points = [point for all_of in series.values() for point in all_of]
    if not points or len(series) > _SERIES:
        raise ValueError(f"{len(series)} series with {len(points)} points")
    left, top, width, height = 70, 44, 720, 300
    right, bottom = width - 110, height - 44
    xs, ys = _Axis.over([x for x, _ in points], left, right), _Axis.over([y for _, y in points], bottom, top)
    parts = [f'<text x="0" y="16" font-weight="bold">{escape(title)}</text>']
    for x in sorted({x for x, _ in points}):
        at = xs.at(x)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{top}" x2="{at:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="dim" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{x:,.0f}</text>')
    for y in _decades(ys.low, ys.high):
        at = ys.at(y)
        parts.append(f'<line class="grid" x1="{left}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>')
        parts.append(f'<text class="dim" x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{y:,.12g}</text>')
    for index, (label, line) in enumerate(series.items()):
        drawn = [(xs.at(x), ys.at(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(f'<polyline class="s{index} line" style="fill:none" points="{path}"/>')
        parts += [f'<circle class="s{index}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in drawn]
        parts.append(f'<rect class="s{index}" x="{right + 14}" y="{top + 20 * index}" width="12" height="12" rx="2"/>')
        parts.append(f'<text x="{right + 32}" y="{top + 10 + 20 * index}">{escape(label)}</text>')
    parts.append(
        f'<text class="dim" x="{(left + right) / 2}" y="{height - 6}" text-anchor="middle">{escape(x_title)}</text>'
    )
    return _svg(width, height, parts)


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    first: float
    last: float

    @classmethod
    def over(cls, values: Sequence[float], first: float, last: float) -> _Axis:
        return cls(min(values) / 1.15, max(values) * 1.15, first, last)

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.first + share * (self.last - self.first)


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between the two."""
    first = math.floor(math.log10(low))
    tens = [step * 10.0**power for power in range(first, math.ceil(math.log10(high)) + 1) for step in (1, 2, 5)]
    return [value for value in tens if low <= value <= high]


def _ticks(most: float) -> list[float]:
    step = 0.5 if most <= 4 else 1.0 if most <= 8 else 5.0
    return [index * step for index in range(int(most / step) + 1)]


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])
