# SPDX-License-Identifier: Apache-2.0
"""The pipeline as a graph: variables, operators and what takes results, with what flows along each edge.

For the pages, notebooks and reports alike it is drawn as SVG, in the colours of whatever is around it. All names are
escaped: they may be anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from insitu.text import count, size

#: Variables and operators that are drawn; of more the first ones, and a box that says how many there are.
VARIABLES, OPERATORS = 12, 24
WIDTH, HEIGHT, ACROSS, DOWN = 156, 40, 92, 54
#: Columns: the simulation has 0, variables 1, operators from 2 on, those behind others from 3 on, and at last files.
_CHAINED, FILES = 3, 99
_MARGIN = 4
_TITLE, _TEXT = 20, 25
#: Numbers stand on a rim in the colour of what is behind them, on a page or in a notebook: edges pass there.
_HALO = (
    ' style="paint-order: stroke; stroke: var(--part, var(--jp-layout-color0, Canvas)); stroke-width: 4px; '
    'stroke-linejoin: round"'
)

Snapshot = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Box:
    """One piece of the pipeline, in a column from the left."""

    title: str
    text: str
    column: int
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """What flows from one box to another; ``None`` where that is not known."""

    source: str
    target: str
    bytes_per_s: float | None = None


@dataclass(slots=True)
class Graph:
    """Boxes by a name of their own, and edges between them."""

    boxes: dict[str, Box] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)


def of_snapshot(now: Snapshot, before: Snapshot) -> Graph:
    """Return the graph of a run with what flowed a second since an earlier snapshot; an empty one is its beginning."""
    flowed_s = now.get("duration_s", 0.0) - before.get("duration_s", 0.0)

    def rates(section: str, nbytes: str) -> dict[str, float]:
        earlier = {one["name"]: one.get(nbytes, 0) for one in before.get(section, [])}
        return {
            one["name"]: (one.get(nbytes, 0) - earlier.get(one["name"], 0)) / flowed_s if flowed_s > 0 else 0.0
            for one in now.get(section, [])
        }

    sent, results = rates("variables", "sent_bytes"), rates("operators", "results")
    operators = now.get("operators", [])
    graph = _graph(
        f"{count(now.get('ranks', {}).get('here', 0), 'rank')}, policy {now.get('budgets', {}).get('policy', '?')}",
        {one["name"]: _extent(one) for one in now.get("variables", []) if one["needed"]},
        operators,
        sent,
        {one["name"]: results[one["name"]] * one.get("row_bytes", 0) for one in operators},
    )
    for name in now.get("recorded", []):
        recorded = list(sent) if name == "*" else [name] if name in sent else []
        for variable in recorded:
            _join(graph, f"variable {variable}", "recording.zarr", sent[variable])
    return graph


def of_operators(operators: Sequence[Mapping[str, Any]]) -> Graph:
    """Return the graph of a configuration; of each operator are told name, use, of, and whether it is stored."""
    variables = [name for one in operators for name in one["of"] if _source_of(name, {}, operators) == name]
    return _graph("", dict.fromkeys(variables, ""), operators, {}, {})


def svg(graph: Graph) -> str:
    """Draw a graph; an empty text where there is nothing to draw."""
    if not graph.boxes:
        return ""
    rows: dict[int, list[str]] = {}
    for name, box in graph.boxes.items():
        rows.setdefault(box.column, []).append(name)
    most = max(len(names) for names in rows.values())
    columns = {column: k for k, column in enumerate(sorted(rows))}
    at = {
        name: (
            _MARGIN + columns[column] * (WIDTH + ACROSS),
            _MARGIN + (most - len(names)) * DOWN / 2 + k * DOWN + _lowered(column),
        )
        for column, names in rows.items()
        for k, name in enumerate(names)
    }
    width = 2 * _MARGIN + len(rows) * (WIDTH + ACROSS) - ACROSS
    height = 2 * _MARGIN + (most - 1) * DOWN + HEIGHT + max(map(_lowered, rows))
    drawn = "".join(_edge(edge, graph, at) for edge in graph.edges) + _labels(graph, at)
    drawn += "".join(_box(box, *at[name]) for name, box in graph.boxes.items())
    label = '"' + _safe("The pipeline: " + "; ".join(_told(edge, graph) for edge in graph.edges)) + '"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label={label} font-family="system-ui, sans-serif">{drawn}</svg>'
    )


def _graph(
    simulation: str,
    variables: Mapping[str, str],
    operators: Sequence[Mapping[str, Any]],
    sent: Mapping[str, float],
    yielded: Mapping[str, float],
) -> Graph:
    graph = Graph({"simulation": Box("Simulation", simulation, 0)})
    for name in list(variables)[:VARIABLES]:
        graph.boxes[f"variable {name}"] = Box(name, variables[name], 1)
        graph.edges.append(Edge("simulation", f"variable {name}", sent.get(name)))
    if len(variables) > VARIABLES:
        graph.boxes["more variables"] = Box(f"and {len(variables) - VARIABLES} more", "variables", 1)
    drawn = operators[:OPERATORS]
    sources = {one["name"]: _sources(one, variables, operators) for one in drawn}
    yielding = {f"operator {one['name']}": yielded.get(one["name"]) for one in operators}
    for one in drawn:
        text = f"{one['use']}, failed" if one.get("failed") else str(one["use"])
        column = 2 + _depth(one["name"], sources)
        graph.boxes[f"operator {one['name']}"] = Box(one["name"], text, column, bool(one.get("failed")))
    if len(operators) > OPERATORS:
        graph.boxes["more operators"] = Box(f"and {len(operators) - OPERATORS} more", "operators", 2)
    for name, found in sources.items():
        for source in found:
            flows = yielding[source] if source in yielding else sent.get(source.removeprefix("variable "))
            _join(graph, source, f"operator {name}", flows)
    for one in drawn:
        if one.get("stored"):
            _join(graph, f"operator {one['name']}", "results.zarr", yielded.get(one["name"]))
    return graph


def _join(graph: Graph, source: str, target: str, flows: float | None) -> None:
    """Add an edge, and the file that it leads to where that is the first one."""
    if source not in graph.boxes:
        return  # one of those that are too many to be drawn
    if target not in graph.boxes:
        graph.boxes[target] = Box(target, "on the disk", FILES)
    graph.edges.append(Edge(source, target, flows))


def _sources(one: Mapping[str, Any], variables: Mapping[str, str], operators: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the boxes of what an operator takes: variables, or the operator whose results it does."""
    found = [(name, _source_of(name, variables, operators)) for name in one["of"]]
    return list(dict.fromkeys(f"variable {name}" if name == whole else f"operator {whole}" for name, whole in found))


def _source_of(name: str, variables: Mapping[str, str], operators: Sequence[Mapping[str, Any]]) -> str:
    """Return the operator whose result this is, as ``stats`` of ``stats.mean``; the name itself of a variable."""
    head, dot, _ = name.partition(".")
    return head if dot and name not in variables and any(each["name"] == head for each in operators) else name


def _depth(name: str, sources: Mapping[str, Sequence[str]]) -> int:
    """Return how many operators come before this one."""
    before = (box.removeprefix("operator ") for box in sources.get(name, []) if box.startswith("operator "))
    return max((1 + _depth(each, sources) for each in before), default=0)


def _extent(variable: Mapping[str, Any]) -> str:
    shape = "joined" if variable["shape"] is None else " x ".join(map(str, variable["shape"])) or "one value"
    return f"{shape} [{variable['units']}]" if variable["units"] else shape


def _lowered(column: int) -> float:
    """Return how much lower a column stands: every second of chained operators, so that edges pass between them."""
    return DOWN / 2 if _CHAINED <= column < FILES and column % 2 else 0.0


def _edge(edge: Edge, graph: Graph, at: Mapping[str, tuple[float, float]]) -> str:
    (x0, y0), (x1, y1) = at[edge.source], at[edge.target]
    x0, y0, y1, half = x0 + WIDTH, y0 + HEIGHT / 2, y1 + HEIGHT / 2, ACROSS / 2
    flows = 1.0 if edge.bytes_per_s else 0.4
    return (
        f'<path d="M{x0:g} {y0:g}C{x0 + half:g} {y0:g} {x1 - half:g} {y1:g} {x1 - 1:g} {y1:g}" fill="none" '
        f'stroke="currentColor" stroke-width="1.3" opacity="{0.55 * flows:.2f}"><title>{_safe(_told(edge, graph))}'
        "</title></path>"
    )


def _labels(graph: Graph, at: Mapping[str, tuple[float, float]]) -> str:
    """Say what flows where edges come together: before a variable and an operator; before files, behind each source."""
    into: dict[str, float] = {}
    drawn = []
    for edge in graph.edges:
        if edge.bytes_per_s is None:
            continue
        if graph.boxes[edge.target].column == FILES:
            x, y = at[edge.source]
            drawn.append(_text(x + WIDTH + 4, y + HEIGHT / 2 - 5, f"{size(edge.bytes_per_s)}/s", "start", more=_HALO))
        else:
            into[edge.target] = into.get(edge.target, 0.0) + edge.bytes_per_s
    for target, flows in into.items():
        x, y = at[target]
        drawn.append(_text(x - 4, y + HEIGHT / 2 - 5, f"{size(flows)}/s", "end", more=_HALO))
    return "".join(drawn)


def _box(box: Box, x: float, y: float) -> str:
    colour = "#D55E00" if box.failed else "currentColor"
    return (
        f"<g><title>{_safe(f'{box.title}: {box.text}')}</title>"
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="currentColor" fill-opacity="0.05" '
        f'stroke="{colour}" stroke-opacity="0.6"/>'
        + _text(x + 9, y + 17, _short(box.title, _TITLE), "start", 12.5, ' font-weight="600"')
        + _text(x + 9, y + 32, _short(box.text, _TEXT), "start", 11, ' opacity="0.8"')
        + "</g>"
    )


def _text(x: float, y: float, text: str, anchor: str, font: float = 11, more: str = "") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{font:g}" fill="currentColor" text-anchor="{anchor}"{more}>'
        f"{_safe(text)}</text>"
    )


def _told(edge: Edge, graph: Graph) -> str:
    flows = "" if edge.bytes_per_s is None else f", {size(edge.bytes_per_s)}/s"
    return f"{graph.boxes[edge.source].title} to {graph.boxes[edge.target].title}{flows}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _safe(text: str) -> str:
    """Return text as it may stand in XML, which has no characters that cannot be printed."""
    printed = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return escape(printed, {'"': "&quot;"})
