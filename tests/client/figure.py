# SPDX-License-Identifier: Apache-2.0
"""Draws a step's way in ``docs/dataflow.md`` from its table: ``python -m tests.client.figure`` writes it anew."""

from pathlib import Path

from tests.client.ways import WAYS, At

PAGE = Path(__file__).parents[2] / "docs" / "dataflow.md"
BEGIN = "<!-- drawn from tests/client/ways.py by: python -m tests.client.figure -->\n"
END = "<!-- end of the figure -->\n"


def draw() -> str:
    """Return the whole page, with the figure in its place."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END, 1)
    return before + BEGIN + _figure() + END + after


def _figure() -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {At.OPEN.name}"]
    lines += [f"    {at.name}: {at.value}" for at in At]
    lines += [f"    {at.name} --> {to.name}: {when}" for at, ways in WAYS.items() for to, when in ways.items()]
    lines += [f"    {at.name} --> [*]" for at in At if at not in WAYS]
    return "\n".join([*lines, "```", ""])


if __name__ == "__main__":
    PAGE.write_text(draw(), encoding="utf-8")
