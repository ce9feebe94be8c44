# SPDX-License-Identifier: Apache-2.0
"""The figures of the dashboard, by Bokeh. Each is made without data; the page fills its sources, which have names.

Colour maps of fields are perceptually uniform. Text and lines take the colours of the page, light or dark, when they
come there.
"""

from typing import Any, Literal

from bokeh.models import ColumnDataSource, HoverTool, LinearColorMapper, NumeralTickFormatter
from bokeh.models.annotations import ColorBar
from bokeh.palettes import Cividis256, Magma256, Viridis256
from bokeh.plotting import figure

from insitu.dashboard.colours import COLOURS, TIME

PALETTES = {"viridis": Viridis256, "cividis": Cividis256, "magma": Magma256}
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
    """One line for each of `runs` runs; source ``NAME-k`` belongs to run k."""
    plot = _figure(x_label, y_label, height=260)
    for k in range(runs):
        source = ColumnDataSource({"x": [], "y": []}, name=f"{name}-{k}")
        colour = COLOURS[k % len(COLOURS)]
        plot.line("x", "y", source=source, line_width=1.5, color=colour)
        plot.scatter("x", "y", source=source, size=3, color=colour)
    return _hover(plot, [(x_label, "@x{0.[000000]}"), (y_label, "@y{0.[000000]}")], mode="vline")


def image(name: str, palette: str = "viridis") -> Any:
    """A field, with a bar that tells what its colours mean. NaN is grey."""
    source = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []}, name=name)
    mapper = LinearColorMapper(palette=PALETTES[palette], low=0, high=1, nan_color="#808080", name=f"{name}-colours")
    plot = _figure("x", "y", height=420, match_aspect=True)
    plot.name = f"{name}-plot"
    plot.image("image", source=source, color_mapper=mapper, x="x", y="y", dw="dw", dh="dh")
    plot.add_layout(ColorBar(color_mapper=mapper, width=12, name=f"{name}-bar"), "right")
    return _hover(plot, [("x, y", "$x{0.0}, $y{0.0}"), ("value", "@image{0.[00000]}")])


def _figure(x_label: str, y_label: str, height: int, **more: Any) -> Any:
    plot = figure(
        height=height, sizing_mode="stretch_width", x_axis_label=x_label, y_axis_label=y_label,
        tools="pan,wheel_zoom,box_zoom,reset,save", active_drag=None, active_scroll=None,
        background_fill_alpha=0, border_fill_alpha=0, output_backend="canvas", **more,
    )  # fmt: skip
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.min_border_left = 60
    return plot


def _hover(plot: Any, tooltips: list[tuple[str, str]], mode: Literal["mouse", "vline"] = "mouse") -> Any:
    plot.add_tools(HoverTool(tooltips=tooltips, mode=mode))
    return plot
