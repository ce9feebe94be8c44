# SPDX-License-Identifier: Apache-2.0
"""``actions.jsonl``: every action of a run with what became of it, so that the run can be had again.

The first line says what the simulation declares. An action has two lines: one with ``"committed": true`` before any
rank is told to apply it, and its receipt. A file that ends between the two, because the controller was killed, so says
that nobody knows: the action reads as torn. Floats are written with all their digits. What a field is set to stands in
a file of its own beside the record, in ``actions/``, as NumPy's ``.npy``.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from insitu.errors import ActionError, ConfigError
from insitu.steering.actions import RULES, Action, Receipt, large, substituted
from insitu.steering.parameters import ParameterSpec

Arguments = Mapping[str, ParameterSpec]
#: What has no meaning, or no good one, in a run that is had again: nobody is there to resume it, and what rules did is
#: on record itself.
_NOT_REPLAYED = ("pause", "resume", RULES)


class ActionRecord:
    """Writes the record of one run. Not safe for threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a", buffering=1)

    def declare(self, parameters: Mapping[str, ParameterSpec], functions: Mapping[str, Arguments]) -> None:
        """All ranks have said what can be steered."""
        actions = {name: [spec.to_plain() for spec in arguments.values()] for name, arguments in functions.items()}
        self._write({"parameters": [spec.to_plain() for spec in parameters.values()], "actions": actions})

    def commit(self, action: Action, boundary: int | None) -> None:
        """All ranks are about to be told to apply an action at this boundary, if it is known yet."""
        torn = substituted(Receipt(action, "torn", boundary=boundary), self._stored(action))
        self._write({**torn.action.to_plain(), "boundary": boundary, "committed": True})

    def settle(self, receipt: Receipt) -> None:
        """Add what became of an action."""
        self._write(substituted(receipt, self._stored(receipt.action)).to_plain())

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")

    def _stored(self, action: Action) -> dict[str, Any]:
        """Store fields in files of their own; return what stands for them in the line."""
        folder = self._path.parent / "actions"
        stored = {}
        for name, value in large(action):
            path = folder / f"{action.id}-{name}.npy"
            if not path.exists():
                folder.mkdir(exist_ok=True)
                np.save(path, value)
            stored[name] = {"file": f"{folder.name}/{path.name}"}
        return stored


def read_declared(path: Path) -> tuple[list[ParameterSpec], dict[str, list[ParameterSpec]]]:
    """Return the parameters of a recorded run, and the arguments of its own actions.

    Raises `ConfigError` for a file that is no record; a run that ended before its first step has declared nothing.
    """
    for _, data in _lines(path):
        if "parameters" in data:
            actions = {name: list(map(ParameterSpec.from_plain, each)) for name, each in data["actions"].items()}
            return [ParameterSpec.from_plain(each) for each in data["parameters"]], actions
    return [], {}


def read_record(path: Path) -> list[Receipt]:
    """Return the receipts of a record, in the order in which they were settled; values of fields are read too.

    Raises `ConfigError` for a file that is none.
    """
    receipts: dict[int, Receipt] = {}
    open_ones: dict[int, Receipt] = {}
    for number, data in _lines(path):
        if "parameters" in data:
            continue
        try:
            data["values"] = _loaded(path, data.get("values") or {})
            if data.get("committed"):
                reason = "the controller ended before it was known what became of it"
                torn = Receipt.from_plain({**data, "outcome": "torn", "reason": reason})
                open_ones[torn.action.id] = torn
            else:
                receipt = Receipt.from_plain(data)
                open_ones.pop(receipt.action.id, None)
                receipts[receipt.action.id] = receipt
        except (ActionError, OSError, ValueError) as error:
            raise ConfigError(f"{path}:{number}: {error}") from error
    return [*receipts.values(), *open_ones.values()]


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read line by line. The last one may be cut off: the controller was killed while it wrote."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give the actions.jsonl of a run") from error
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                return
            raise ConfigError(f"{path}:{number}: is no JSON ({error.msg}); give the actions.jsonl of a run") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{path}:{number}: {line:.80} is no action; give the actions.jsonl of a run")
        yield number, data


def _loaded(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: np.load(path.parent / value["file"], allow_pickle=False) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def to_replay(path: Path) -> tuple[list[tuple[int, Action]], list[str]]:
    """Return the actions of a record with their boundaries, in order, and what is to be said of those left out."""
    applied, notes = _applied(path)
    actions = []
    for receipt in applied:
        if receipt.boundary is None:
            text = f"action {receipt.action.id} ({receipt.action.describe()})"
            raise ConfigError(f"{path}: {text} has no boundary at which it was applied")
        actions.append((receipt.boundary, receipt.action))
    return sorted(actions, key=lambda each: each[0]), notes


def to_replay_on(path: Path, indices: Sequence[int]) -> tuple[list[tuple[int, Action]], list[str]]:
    """Return the actions of a record for a replay of published steps that have these indices.

    Steps that were not published are not there to be counted, so an action comes after the last one up to its own.
    Fields are left out, as a replay has none, and so is ``trate``: what it has changed is in the recording already.
    """
    applied, notes = _applied(path)
    fields = {spec.name for spec in read_declared(path)[0] if spec.kind == "field"}
    actions = []
    for receipt in applied:
        values = {name: value for name, value in receipt.action.values.items() if name not in fields}
        after = bisect_right(indices, -1 if receipt.step is None else receipt.step) - 1
        if receipt.action.kind == "trate" or (receipt.action.kind == "set" and not values) or after < 0:
            continue
        actions.append((after, replace(receipt.action, values=values)))
    return sorted(actions, key=lambda each: each[0]), notes


def _applied(path: Path) -> tuple[list[Receipt], list[str]]:
    """Return the receipts of what can be applied again, and what is to be said of what cannot."""
    receipts = read_record(path)
    notes = [
        f"action {torn.action.id} ({torn.action.describe()}) was torn and is left out: the run may go another way."
        for torn in receipts
        if torn.outcome == "torn"
    ]
    return [each for each in receipts if each.outcome == "applied" and each.action.kind not in _NOT_REPLAYED], notes
