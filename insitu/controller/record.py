# SPDX-License-Identifier: Apache-2.0
"""``actions.jsonl``: every action of a run with what became of it, so that the run can be had again.

An action has two lines: one with ``"committed": true`` before any rank is told to apply it, and its receipt. A file
that ends between the two, because the controller was killed, so says that nobody knows: the action reads as torn.
Floats are written with all their digits. What a field is set to stands in a file of its own beside the record, in
``actions/``, as NumPy's ``.npy``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from insitu.errors import ActionError, ConfigError
from insitu.steering.actions import Action, Receipt, large, substituted

#: What has no meaning, or no good one, in a run that is had again: nobody is there to resume it.
_NOT_REPLAYED = ("pause", "resume")


class ActionRecord:
    """Writes the record of one run. Not safe for threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a", buffering=1)

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


def read_record(path: Path) -> list[Receipt]:
    """Return the receipts of a record, in the order in which they were settled; values of fields are read too.

    Raises `ConfigError` for a file that is none.
    """
    receipts: dict[int, Receipt] = {}
    open_ones: dict[int, Receipt] = {}
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the actions.jsonl of a run") from error
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
            if not isinstance(data, dict):
                raise ActionError(f"{line:.80} is no action.")
            data["values"] = _loaded(path, data.get("values") or {})
            if data.get("committed"):
                reason = "the controller ended before it was known what became of it"
                torn = Receipt.from_plain({**data, "outcome": "torn", "reason": reason})
                open_ones[torn.action.id] = torn
            else:
                receipt = Receipt.from_plain(data)
                open_ones.pop(receipt.action.id, None)
                receipts[receipt.action.id] = receipt
        except json.JSONDecodeError as error:
            if number == len(lines):
                continue  # the controller was killed while it wrote
            raise ConfigError(f"{path}:{number}: is no JSON ({error.msg}); give the actions.jsonl of a run") from None
        except (ActionError, OSError, ValueError) as error:
            raise ConfigError(f"{path}:{number}: {error}") from error
    return [*receipts.values(), *open_ones.values()]


def _loaded(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: np.load(path.parent / value["file"], allow_pickle=False) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def to_replay(path: Path) -> tuple[list[tuple[int, Action]], list[str]]:
    """Return the actions of a record with their boundaries, in order, and what is to be said of those left out."""
    actions, notes = [], []
    for receipt in read_record(path):
        text = receipt.action.describe()
        if receipt.outcome == "torn":
            notes.append(f"action {receipt.action.id} ({text}) was torn and is left out: the run may go another way.")
        if receipt.outcome != "applied" or receipt.action.kind in _NOT_REPLAYED:
            continue
        if receipt.boundary is None:
            raise ConfigError(f"{path}: action {receipt.action.id} ({text}) has no boundary at which it was applied")
        actions.append((receipt.boundary, receipt.action))
    return sorted(actions, key=lambda each: each[0]), notes
