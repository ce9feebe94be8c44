# SPDX-License-Identifier: Apache-2.0
"""``insitu top``: one screen of a run that goes on, for people on a login node. A plain text where nobody watches."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from insitu.dashboard import derive
from insitu.dashboard.viewer import Viewer
from insitu.errors import RunError
from insitu.text import count, duration, size
from insitu.wire.viewing import News

#: How often the screen is drawn anew.
DRAW_S = 1.0
#: How long a controller may be silent before it is given up.
SILENT_S = 30.0
#: Ranks on the screen: those that have waited longest.
RANKS = 8


def watch(contact: str, console: Console, *, once: bool) -> None:
    """Draw a run until it ends, or `once`. Raises `RunError` where it cannot be reached."""
    viewer = Viewer.of(contact)
    pause = threading.Event()  # never set
    try:
        first = _next(viewer)
        if once or first is None:
            console.print(screen(first or {}))
            return
        with Live(screen(first), console=console, screen=False, auto_refresh=False) as live:
            while (snapshot := _next(viewer)) is not None:
                live.update(screen(snapshot), refresh=True)
                if viewer.over:
                    break
                pause.wait(DRAW_S)
        console.print("The run has ended.")
    except KeyboardInterrupt:
        console.print("The run goes on.")
    finally:
        viewer.close()


def _next(viewer: Viewer) -> Mapping[str, Any] | None:
    """Ask, and return the answer; ``None`` when the run has ended meanwhile."""
    viewer.ask()
    deadline = time.monotonic() + SILENT_S
    while time.monotonic() < deadline:
        answers = [answer.snapshot for answer in viewer.receive(0.2) if isinstance(answer, News)]
        if answers:
            return answers[-1]
        if viewer.over:
            return None
    raise RunError(f"The controller has not answered for {SILENT_S:g} s; has its process been stopped?")


def screen(snapshot: Mapping[str, Any]) -> RenderableType:
    """Return what is drawn of a snapshot."""
    if not snapshot:
        return Text("The run has ended.")
    progress = snapshot["progress"]
    moment = "" if progress["time"] is None else f", time {progress['time']:.6g}"
    newest = "no step yet" if progress["index"] is None else f"step {progress['index']}{moment}"
    head = Text.assemble(
        (f"{snapshot['run']}", "bold"),
        f"  {snapshot['status'] or snapshot['phase']}, {newest}, after {duration(snapshot['duration_s'])}\n",
        f"{progress['steps']} steps ({derive.rate(snapshot, 'steps'):.3g}/s), {size(progress['bytes'])} "
        f"({size(derive.rate(snapshot, 'bytes'))}/s), {progress['results']} results, {progress['dropped']} dropped\n",
        (derive.verdict(snapshot), "italic"),
    )
    return Group(head, Text(), _nodes(snapshot), Text(), _ranks(snapshot), Text(), _operators(snapshot))


def _nodes(snapshot: Mapping[str, Any]) -> Table:
    table = _table("node", "host", "state", "folded", "queued", "states", "of")
    for node in snapshot["nodes"]:
        table.add_row(
            str(node["node"]), node["host"], _state(node["state"]), str(node.get("folded_steps", 0)),
            size(node.get("waiting_bytes", 0)), size(node.get("state_bytes", 0)),
            size(snapshot["budgets"]["node_bytes"]),
        )  # fmt: skip
    return table


def _ranks(snapshot: Mapping[str, Any]) -> Table:
    told = snapshot["ranks"]["told"]
    longest = sorted(told, key=lambda rank: rank["wait_staging_s"] + rank["wait_network_s"], reverse=True)[:RANKS]
    table = _table("rank", "host", "state", "steps", "put", "waited: staging", "network")
    for rank in sorted(longest, key=lambda rank: rank["rank"]):
        table.add_row(
            str(rank["rank"]), rank["host"], _state(rank["state"]), str(rank["steps"]), size(rank["put_bytes"]),
            duration(rank["wait_staging_s"]), duration(rank["wait_network_s"]),
        )  # fmt: skip
    others = snapshot["ranks"]["here"] - len(longest)
    if others > 0:
        table.caption = f"and {count(others, 'rank')} that waited less"
    return table


def _operators(snapshot: Mapping[str, Any]) -> Table:
    table = _table("operator", "use", "of", "results", "failed")
    for one in snapshot["operators"]:
        failed = Text(one["failed"], style="red") if one["failed"] else Text("no")
        table.add_row(one["name"], one["use"], ", ".join(one["of"]), str(one["results"]), failed)
    return table


def _state(state: str) -> Text:
    return Text(state, style={"running": "green", "gone": "red"}.get(state, ""))


def _table(*head: str) -> Table:
    return Table(*head, box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
