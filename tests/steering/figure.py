# SPDX-License-Identifier: Apache-2.0
"""Draws the agreement in ``docs/steering.md`` from its table: ``python -m tests.steering.figure`` writes it anew."""

from pathlib import Path

from insitu.steering.agreement import TRANSITIONS, Side, State

PAGE = Path(__file__).parents[2] / "docs" / "steering.md"
BEGIN = "<!-- drawn from insitu/steering/agreement.py by: python -m tests.steering.figure -->\n"
END = "<!-- end -->\n"


def draw() -> str:
    """Return the whole page, with the figure of each side in its place."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END, 1)
    return before + BEGIN + "".join(map(_side, Side)) + "\n" + END + after


def _side(side: Side) -> str:
    table = TRANSITIONS[side]
    reached = {State.NEW} | {state for events in table.values() for state in events.values()}
    lines = [f"\nThe attempt, as {side.value} sees it:\n", "```mermaid", "stateDiagram-v2", "    [*] --> NEW"]
    lines += [f"    {state.name}: {state.name} ({state.value})" for state in State if state in reached]
    for state, events in table.items():
        lines += [f"    {state.name} --> {after.name}: {event.value}" for event, after in events.items()]
    lines += [f"    {state.name} --> [*]" for state in State if state in reached - table.keys()]
    return "\n".join([*lines, "```", ""])


if __name__ == "__main__":
    PAGE.write_text(draw(), encoding="utf-8")
