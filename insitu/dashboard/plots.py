# SPDX-License-Identifier: Apache-2.0
"""The figures of the dashboard, by Bokeh. Each is made without data; the page fills its sources, which have names.

Colour maps of fields are perceptually uniform. Text and lines take the colours of the page, light or dark, when they
come there.
"""

from collections.abc import Sequence
from math import cos, pi, sin
from typing import Any, Literal

from bokeh.models import (
    BasicTickFormatter,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    LinearColorMapper,
    NoOverlap,
    NumeralTickFormatter,
    PrintfTickFormatter,
    SingleIntervalTicker,
)
from bokeh.models.annotations import ColorBar
from bokeh.palettes import Cividis256, Magma256, Viridis256
from bokeh.plotting import figure
from bokeh.transform import dodge

from insitu.dashboard.colours import COLOURS, TIME

PALETTES = {"viridis": Viridis256, "cividis": Cividis256, "magma": Magma256}
#: What is drawn across lines: where a rule fires, and when an action was applied.
LEVEL, ACTION = "#D55E00", "#808080"
LEVEL_LEGEND = (("threshold of a rule", LEVEL),)
#: Runs are told apart by dashes where colours tell quantities apart.
DASHES = ("solid", "dashed", "dotted", "dotdash")
#: Bokeh's own ticks of a logarithmic axis are those of a linear one below two decades: most of it has none then.
DECADES = [m * 10.0**e for e in range(-16, 17) for m in (1, 2, 5)]
QUEUES_LEGEND = (("blocks that wait", COLOURS[1]), ("states of operators", COLOURS[0]))


def time_strip(name: str) -> Any:
    """A strip over the run's time: which share of it the ranks computed, and waited for whom."""
    source = ColumnDataSource({key: [] for key in ("at_s", *TIME)}, name=name)
    plot = _figure("seconds since the run began", "share of the ranks' time", height=200, y_range=(0, 1))
    plot.varea_stack(list(TIME), x="at_s", source=source, color=list(TIME.values()), fill_alpha=0.85)
    plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    return plot


def rates(name: str) -> Any:
    """What arrives a second."""
    source = ColumnDataSource({"at_s": [], "rate": []}, name=name)
    plot = _figure("seconds since the run began", "MiB a second", height=180)
    plot.line("at_s", "rate", source=source, line_width=2, color=COLOURS[0])
    plot.y_range.start = 0
    return _hover(plot, [("after", "@at_s{0.0} s"), ("MiB/s", "@rate{0.000 a}")])


def queues(name: str) -> Any:
    """What the staging nodes hold: blocks that wait, and states."""
    source = ColumnDataSource({"at_s": [], "waiting": [], "states": []}, name=name)
    plot = _figure("seconds since the run began", "MiB", height=180)
    for column, (_, colour) in zip(("waiting", "states"), QUEUES_LEGEND, strict=True):
        plot.line("at_s", column, source=source, line_width=2, color=colour)
    plot.y_range.start = 0
    return plot


def lines(name: str, runs: int, x_label: str, y_label: str) -> Any:
    """One line for each of `runs` runs; source ``NAME-k`` belongs to run k.

    ``NAME-levels`` are thresholds of rules, which are drawn across, and ``NAME-actions`` the steps of actions.
    """
    plot = _figure(x_label, y_label, height=260)
    drawn = []
    for k in range(runs):
        source = ColumnDataSource({"x": [], "y": []}, name=f"{name}-{k}")
        colour = COLOURS[k % len(COLOURS)]
        drawn.append(plot.line("x", "y", source=source, line_width=1.5, color=colour))
        drawn.append(plot.scatter("x", "y", source=source, size=3, color=colour))
    levels = ColumnDataSource({"y": []}, name=f"{name}-levels")
    plot.hspan(y="y", source=levels, line_color=LEVEL, line_width=1.2, line_dash="dashed")
    actions = ColumnDataSource({"x": []}, name=f"{name}-actions")
    plot.vspan(x="x", source=actions, line_color=ACTION, line_width=1, line_dash="dotted")
    return _hover(plot, [(x_label, "@x{0.[000000]}"), (y_label, "@y{0.[000000]}")], mode="vline", of=drawn)


def curves(
    name: str, runs: int, labels: Sequence[str], x_label: str, y_label: str, log: bool = False, first: int = 0
) -> Any:
    """Several quantities over one axis, of `runs` runs from the `first` on.

    Source ``NAME-k`` has run k's `x` and a column for each label.
    """
    plot = _figure(x_label, y_label, height=240, **({"y_axis_type": "log"} if log else {}))
    if log:
        plot.yaxis.ticker = FixedTicker(ticks=DECADES)
        plot.yaxis.formatter = PrintfTickFormatter(format="%g")
    drawn = []
    for k in range(first, first + runs):
        source = ColumnDataSource({key: [] for key in ("x", *labels)}, name=f"{name}-{k}")
        for j, label in enumerate(labels):
            dash = DASHES[k % len(DASHES)]
            drawn.append(plot.line("x", label, source=source, line_width=1.8, color=COLOURS[j], line_dash=dash))
            drawn.append(plot.scatter("x", label, source=source, size=3, color=COLOURS[j]))
    tips = [(x_label, "@x"), *((label, f"@{{{label}}}{{0.[00000]}}") for label in labels)]
    return _hover(plot, tips, mode="vline", of=drawn[:1])


def bars(name: str, runs: int, x_label: str, y_label: str) -> Any:
    """A bar for each number of run k, beside those of the other runs, with a whisker from `low` to `high`."""
    plot = _figure(x_label, y_label, height=260)
    width = 0.8 / runs
    for k in range(runs):
        source = ColumnDataSource({key: [] for key in ("x", "y", "low", "high")}, name=f"{name}-{k}")
        at = dodge("x", (k - (runs - 1) / 2) * width)
        plot.vbar(x=at, top="y", width=0.9 * width, source=source, color=COLOURS[k % len(COLOURS)])
        plot.segment(x0=at, x1=at, y0="low", y1="high", source=source, line_width=2, color=ACTION)
    plot.xaxis.ticker = SingleIntervalTicker(interval=1, num_minor_ticks=0)
    return _hover(plot, [(x_label, "@x"), (y_label, "@y{0.[00000]}")])


def plane(name: str, runs: int, x_label: str, y_label: str) -> Any:
    """The way of each run in a plane; the newest point is marked."""
    plot = _figure(x_label, y_label, height=320)
    for k in range(runs):
        colour = COLOURS[k % len(COLOURS)]
        source = ColumnDataSource({"x": [], "y": [], "step": []}, name=f"{name}-{k}")
        plot.line("x", "y", source=source, line_width=1, color=colour, alpha=0.5)
        plot.scatter("x", "y", source=source, size=3, color=colour)
        newest = ColumnDataSource({"x": [], "y": []}, name=f"{name}-newest{k}")
        plot.scatter("x", "y", source=newest, size=11, color=colour, line_color=ACTION, line_width=2)
    return _hover(plot, [("step", "@step"), (x_label, "@x{0.[00000]}"), (y_label, "@y{0.[00000]}")])


def circle(name: str, runs: int) -> Any:
    """Eigenvalues in the complex plane: those outside of the unit circle grow, those inside decay."""
    plot = _figure("real part", "imaginary part", height=320, match_aspect=True)
    angles = [2 * pi * k / 180 for k in range(181)]
    plot.line([cos(angle) for angle in angles], [sin(angle) for angle in angles], color=ACTION, line_dash="dashed")
    for k in range(runs):
        source = ColumnDataSource({"x": [], "y": []}, name=f"{name}-{k}")
        plot.scatter("x", "y", source=source, size=8, color=COLOURS[k % len(COLOURS)], fill_alpha=0.6)
    return _hover(plot, [("real", "@x{0.[00000]}"), ("imaginary", "@y{0.[00000]}")])


def image(name: str, palette: str = "viridis") -> Any:
    """A field, with a bar that tells what its colours mean. NaN is grey."""
    source = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []}, name=name)
    mapper = LinearColorMapper(palette=PALETTES[palette], low=0, high=1, nan_color="#808080", name=f"{name}-colours")
    # As high as wide, but for the colours: else a narrow screen shows a field in the middle of nothing.
    plot = _figure("x", "y", height=None, sizing_mode="scale_width", aspect_ratio=1.4, match_aspect=True)
    plot.name = f"{name}-plot"
    plot.image("image", source=source, color_mapper=mapper, x="x", y="y", dw="dw", dh="dh")
    plot.add_layout(ColorBar(color_mapper=mapper, width=12, name=f"{name}-bar"), "right")
    return _hover(plot, [("x, y", "$x{0.0}, $y{0.0}"), ("value", "@image{0.[00000]}")])


def _figure(x_label: str, y_label: str, height: int | None, sizing_mode: Any = "stretch_width", **more: Any) -> Any:
    plot = figure(
        height=height, sizing_mode=sizing_mode, x_axis_label=x_label, y_axis_label=y_label,
        tools="pan,wheel_zoom,box_zoom,reset,save", active_drag=None, active_scroll=None,
        background_fill_alpha=0, border_fill_alpha=0, output_backend="canvas", **more,
    )  # fmt: skip
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.min_border_left = 60
    plot.axis.major_label_policy = NoOverlap(min_distance=6)
    for axis in plot.axis:
        if isinstance(axis.formatter, BasicTickFormatter):
            axis.formatter.power_limit_high = 7  # steps are numbered by people, who write 120000
    return plot


def _hover(
    plot: Any,
    tooltips: list[tuple[str, str]],
    mode: Literal["mouse", "vline"] = "mouse",
    of: Sequence[Any] | None = None,
) -> Any:
    plot.add_tools(HoverTool(tooltips=tooltips, mode=mode, renderers="auto" if of is None else list(of)))
    return plot
