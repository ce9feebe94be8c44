# SPDX-License-Identifier: Apache-2.0
"""What the ranks have declared to be steered, whether they all declare the same, and what it is set to by now."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from insitu.errors import ActionError, RemoteProtocolError
from insitu.steering.actions import Action, check_values
from insitu.steering.parameters import ParameterSpec, Value
from insitu.wire.messages import Event
from insitu.wire.steering import Declare


class Declarations:
    """Of all ranks. What they do not all declare alike cannot be steered; `differing` says why, by name."""

    def __init__(self, journal: Callable[[str, Event], None]) -> None:
        self.parameters: dict[str, ParameterSpec] = {}
        self.functions: dict[str, dict[str, ParameterSpec]] = {}
        self.values: dict[str, Value] = {}
        self.differing: dict[str, str] = {}
        #: Whether all ranks have closed a step, before which they declare what they have.
        self.ready = False
        #: Counts changes, so that whoever shows this knows that there is something new.
        self.version = 0
        self._journal = journal
        self._said: dict[int, dict[str, Declare]] = {}
        self._complete: set[int] = set()

    def add(self, rank: int, declare: Declare) -> None:
        """A rank declares something. Raises `RemoteProtocolError` for a declaration that is none."""
        try:
            self._learn(declare)
        except (ActionError, KeyError, TypeError, AttributeError) as error:
            raise RemoteProtocolError(f"Declare.spec: {error}") from error
        self._said.setdefault(rank, {})[declare.name] = declare
        for other, said in self._said.items():
            first = said.get(declare.name)
            if first is not None and (first.what, first.spec) != (declare.what, declare.spec):
                self._differ(
                    declare.name, f"rank {rank} declares {declare.what} '{declare.name}' otherwise than rank {other}"
                )
        if self.ready:
            self._compare(self._said.keys())

    def _learn(self, declare: Declare) -> None:
        name, spec = declare.name, declare.spec
        if declare.what == "action":
            arguments = [ParameterSpec.from_plain(each) for each in spec["arguments"]]
            known = self.functions.setdefault(name, {each.name: each for each in arguments})
            self.version += known is not None
            return
        parameter = ParameterSpec.from_plain(spec)
        if name not in self.parameters:
            self.parameters[name] = parameter
            if parameter.default is not None:
                self.values[name] = parameter.default
            self.version += 1

    def complete(self, rank: int, ranks: Collection[int], size: int | None) -> bool:
        """A rank has closed a step: what it has not declared by now it does not have. Return whether all have now."""
        if self.ready:
            return False
        self._complete.add(rank)
        if len(self._complete) == size:
            self.ready = True
            self.version += 1
            self._compare(ranks)
        return self.ready

    def _compare(self, ranks: Collection[int]) -> None:
        names = {name for said in self._said.values() for name in said}
        for name in sorted(names):
            without = [rank for rank in sorted(ranks) if name not in self._said.get(rank, {})]
            if without:
                self._differ(name, f"rank {', '.join(map(str, without))} does not declare '{name}', and others do")

    def _differ(self, name: str, text: str) -> None:
        if name not in self.differing:
            self.differing[name] = text
            self._journal(
                "controller", Event("error", "declarations-differ", f"{text[0].upper()}{text[1:]}.", {"name": name})
            )

    def check(self, action: Action) -> dict[str, Value]:
        """Return the values of an action, checked. Raises `ActionError` for one that no rank would promise."""
        for name in (action.kind, *action.values):
            if name in self.differing and (name == action.kind or action.kind == "set"):
                raise ActionError(f"the ranks do not agree on '{name}': {self.differing[name]}.")
        return check_values(action, self.parameters, self.functions)

    def taken(self, action: Action) -> dict[str, Value]:
        """Return the values of an action as the ranks have taken them."""
        try:
            return self.check(action)
        except ActionError:
            return dict(action.values)  # recorded, and applied by ranks that declare otherwise

    def set(self, values: Mapping[str, Value]) -> None:
        """The parameters have these values now; of fields none is kept."""
        small = {name: value for name, value in values.items() if name in self.values}
        self.values.update(small)

    def part(self, rank: int, name: str, value: Any) -> Any:
        """Return what of a value goes to a rank: its part of a field, and all of anything else."""
        spec, declare = self.parameters.get(name), self._said.get(rank, {}).get(name)
        if spec is None or spec.kind != "field" or declare is None:
            return value
        array = np.asarray(value)
        return array[tuple(slice(low, low + n) for low, n in zip(declare.start, declare.count, strict=True))]
