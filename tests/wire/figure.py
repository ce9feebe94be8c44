# SPDX-License-Identifier: Apache-2.0
"""Draws ``docs/wire-states.md`` from the table of transitions: ``python -m tests.wire.figure`` writes it anew."""

from collections import defaultdict
from pathlib import Path

from insitu.wire.session import FROM_LISTENER, TRANSITIONS, Link, State

PAGE = Path(__file__).parents[2] / "docs" / "wire-states.md"

INTRODUCTION = """\
# The states of a link

Drawn from the table in `insitu/wire/session.py` by `python -m tests.wire.figure`; a test fails where this page differs.

An arrow is a message that moves the link on, a note what may be said meanwhile. → is said by the connecting side, ← by
the listening one. `Refuse` ends a link from every state but the last, and is left out.
"""


def draw() -> str:
    """Return the whole page."""
    return INTRODUCTION + "".join(_section(link) for link in Link)


def _section(link: Link) -> str:
    lines = [f"\n## {link.value.capitalize()}\n", "```mermaid", "stateDiagram-v2", "    [*] --> NEW"]
    states = [state for state in State if state in TRANSITIONS[link] and state is not State.REFUSED]
    lines += [f"    {state.name}: {state.name} ({state.value})" for state in states]
    for state in states:
        lines += _arrows(link, state)
    return "\n".join([*lines, "    ENDING --> [*]", "```", ""])


def _arrows(link: Link, state: State) -> list[str]:
    after: dict[State, list[str]] = defaultdict(list)
    for cls, follows in TRANSITIONS[link][state].items():
        if follows is not State.REFUSED:
            after[follows].append(f"{'←' if cls in FROM_LISTENER else '→'} {cls.__name__}")
    lines = [f"    {state.name} --> {to.name}: {', '.join(said)}" for to, said in after.items() if to is not state]
    if after[state]:
        lines += [f"    note right of {state.name}", *[f"        {said}" for said in after[state]], "    end note"]
    return lines


if __name__ == "__main__":
    PAGE.write_text(draw(), encoding="utf-8")
