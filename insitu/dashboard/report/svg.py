# SPDX-License-Identifier: Apache-2.0
"""Small plots as SVG, which stand in a page by themselves: no script, no other file.

The report of each run has some. It is written at every run's end, on machines without the dashboard's libraries, and
kept with the run: so its plots may cost neither a second nor a megabyte. Those one works with are the dashboard's.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 460, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 10, 8, 34

Points = Sequence[tuple[float, float]]


def line(xs: Sequence[float], ys: Sequence[float], x_label: str, y_label: str, colour: str) -> str:
    """Return a line through the points; where a value is not finite the line is interrupted."""
    known = [(x, y) for x, y in zip(xs, ys, strict=True) if isfinite(x) and isfinite(y)]
    if not known:
        return ""
    frame = _Frame(known)
    pieces: list[Points] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if isfinite(x) and isfinite(y):
            pieces[-1] = [*pieces[-1], (x, y)]
        elif pieces[-1]:
            pieces.append([])
    drawn = "".join(frame.polyline(piece, colour) for piece in pieces if piece)
    return frame.svg(drawn, x_label, y_label)


def stack(xs: Sequence[float], parts: Mapping[str, Sequence[float]], colours: Mapping[str, str], x_label: str) -> str:
    """Return shares that sum up to 1 as areas upon each other."""
    if len(xs) < 2:
        return ""
    frame = _Frame([(xs[0], 0.0), (xs[-1], 1.0)])
    below = [0.0] * len(xs)
    drawn = []
    for name, values in parts.items():
        above = [low + value for low, value in zip(below, values, strict=True)]
        outline = [*zip(xs, above, strict=True), *reversed(list(zip(xs, below, strict=True)))]
        drawn.append(frame.area(outline, colours[name], name))
        below = above
    return frame.svg("".join(drawn), x_label, "share of the ranks' time")


class _Frame:
    """The axes around some points."""

    def __init__(self, points: Points) -> None:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        self._x = _wide(min(xs), max(xs))
        self._y = _wide(min(ys), max(ys))

    def at(self, x: float, y: float) -> str:
        (x0, x1), (y0, y1) = self._x, self._y
        across = _LEFT + (x - x0) / (x1 - x0) * (WIDTH - _LEFT - _RIGHT)
        down = HEIGHT - _BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - _TOP - _BOTTOM)
        return f"{across:.1f},{down:.1f}"

    def polyline(self, points: Points, colour: str) -> str:
        if len(points) == 1:
            x, y = self.at(*points[0]).split(",")
            return f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>'
        places = " ".join(self.at(x, y) for x, y in points)
        return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>'

    def area(self, points: Points, colour: str, name: str) -> str:
        places = " ".join(self.at(x, y) for x, y in points)
        return f'<polygon points="{places}" fill="{colour}"><title>{escape(name)}</title></polygon>'

    def svg(self, drawn: str, x_label: str, y_label: str) -> str:
        (x0, x1), (y0, y1) = self._x, self._y
        right, low = WIDTH - _RIGHT, HEIGHT - _BOTTOM
        texts = [
            _text(_LEFT, low + 14, f"{x0:.4g}", "start"),
            _text(right, low + 14, f"{x1:.4g}", "end"),
            _text(_LEFT - 5, _TOP + 8, f"{y1:.4g}", "end"),
            _text(_LEFT - 5, low, f"{y0:.4g}", "end"),
            _text((_LEFT + right) / 2, HEIGHT - 6, x_label, "middle"),
        ]
        box = f'<path d="M{_LEFT} {_TOP}V{low}H{right}" fill="none" stroke="currentColor" opacity="0.5"/>'
        label = quoteattr(f"{y_label} over {x_label}")
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label={label}>{drawn}{box}{"".join(texts)}</svg>'


def _wide(low: float, high: float) -> tuple[float, float]:
    """Return limits that differ."""
    return (low, high) if high > low else (low - (abs(low) or 1.0) / 2, low + (abs(low) or 1.0) / 2)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="11" fill="currentColor" text-anchor="{anchor}">{escape(text)}</text>'
    )
