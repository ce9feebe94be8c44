# SPDX-License-Identifier: Apache-2.0
"""Rules: when a condition over results holds, actions follow. No sockets, no clock.

A rule is judged at every tick that brings a result of an operator which it reads, once all of them have yielded one.
It *fires* when its condition becomes true and has been true over ``for`` steps; and again each ``cooldown`` steps for
as long as it stays true. Without a cooldown it fires once for each time that the condition becomes true.

**What fights.** All that rules and controllers want at one tick is settled together (`settle`): two that set one
parameter to different values, or pause and resume, fight. The higher priority has its way; of equals neither has, for
an order that nobody chose would decide. Each refusal names the other.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from insitu.model import PARAMETERS
from insitu.steering.actions import Action
from insitu.steering.expressions import Expression
from insitu.steering.lockstep import Tick
from insitu.steering.parameters import Value
from insitu.steering.series import Reference, Series

#: What an expression may raise where it has no value: a division by zero, the root of -1, a text times a number.
NO_VALUE = (ArithmeticError, ValueError, TypeError)


@dataclass(frozen=True, slots=True)
class Order:
    """An action to come: its kind, and its values, which are plain or expressions."""

    kind: str
    values: Mapping[str, Value | Expression] = field(default_factory=dict)

    def valued(self, names: Mapping[str, Value]) -> dict[str, Value]:
        """Return the values; raises what `Expression` raises where one has none."""
        return {key: value(names) if isinstance(value, Expression) else value for key, value in self.values.items()}

    @property
    def texts(self) -> dict[str, Value]:
        """The values as they are written."""
        return {key: value.text if isinstance(value, Expression) else value for key, value in self.values.items()}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, compiled. `holds` and `cooldown` are in published steps, ``None`` for no cooldown."""

    name: str
    when: Expression
    do: tuple[Order, ...] = ()
    holds: int = 1
    cooldown: int | None = None
    once: bool = False
    priority: int = 0
    notify: str = ""

    @property
    def references(self) -> tuple[Reference, ...]:
        """All numbers of the run that the rule reads."""
        values = [value for order in self.do for value in order.values.values() if isinstance(value, Expression)]
        return tuple(dict.fromkeys(reference for each in (self.when, *values) for reference in each.references))

    @property
    def operators(self) -> frozenset[str]:
        """The operators whose results it reads."""
        return frozenset(reference.operator for reference in self.references)

    @property
    def by(self) -> str:
        """How receipts call it."""
        return f"rule:{self.name}"


@dataclass(frozen=True, slots=True)
class Wish:
    """An action that a rule or a controller wants, before it is known what the others want."""

    action: Action
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """An action that is not asked of the simulation, and why."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell people: that a rule fired, or (`fault`) that it has no value."""

    by: str
    text: str
    step: int
    values: Mapping[str, Value]
    fault: bool = False


@dataclass(slots=True)
class Judgement:
    """What came of one tick."""

    wishes: list[Wish] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


@dataclass(slots=True)
class _Progress:
    """How far a rule is: since which sequence its condition is true, and when it fired."""

    true_since: int | None = None
    fired: bool = False
    fired_at: int | None = None
    told: bool = False


class Rules:
    """The rules of one run, judged tick after tick."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = {rule.name: (rule, _Progress()) for rule in rules}
        spans: dict[Reference, set[int]] = {}
        for rule in rules:
            for reference in rule.references:
                spans.setdefault(reference.source, set()).update([reference.span] if reference.span else [])
        self._series = {source: Series(sorted(each)) for source, each in spans.items()}
        self._spoken: set[str] = set()

    @property
    def sources(self) -> frozenset[Reference]:
        """The numbers that the rules need of each result."""
        return frozenset(self._series)

    def drop(self, operator: str) -> list[str]:
        """An operator was stopped: end the rules that read it, and return their names."""
        gone = [
            name
            for name, (rule, _) in self._rules.items()
            if any(each.operator == operator for each in rule.references)
        ]
        for name in gone:
            del self._rules[name]
        return gone

    def judge(
        self, tick: Tick, parameters: Mapping[str, Value], judgement: Judgement, off: Collection[str] = ()
    ) -> None:
        """Take in a tick and judge the rules that it concerns, in the order of the file; add to the judgement.

        Those that are `off` are not judged, and begin anew afterwards; the numbers that they read are kept meanwhile.
        """
        news = {each.operator: each for each in tick.observations}
        for observation in tick.observations:
            for source, number in observation.numbers.items():
                if source in self._series:
                    self._series[source].add(number)
        self._spoken |= news.keys()
        for rule, progress in self._rules.values():
            if rule.name in off:
                progress.true_since, progress.fired = None, False
            elif rule.operators & news.keys() and rule.operators <= self._spoken:
                first = max(news[operator].first for operator in rule.operators & news.keys())
                self._judge(rule, progress, tick, first, parameters, judgement)

    def _judge(
        self,
        rule: Rule,
        progress: _Progress,
        tick: Tick,
        first: int,
        parameters: Mapping[str, Value],
        judgement: Judgement,
    ) -> None:
        names = self._names(rule, tick, parameters)
        try:
            holds = rule.when(names) is True
        except NO_VALUE as error:
            holds = False
            if not progress.told:
                progress.told = True
                text = f"{rule.when.text} has no value at step {tick.step}, and counts as not true: {error}"
                judgement.notices.append(Notice(rule.by, text, tick.step, _shown(names), fault=True))
        if not holds:
            progress.true_since, progress.fired = None, False
            return
        if progress.true_since is None:
            progress.true_since = first
        if self._is_due(rule, progress, tick.sequence):
            progress.fired, progress.fired_at = True, tick.sequence
            self._fire(rule, tick, names, judgement)

    @staticmethod
    def _is_due(rule: Rule, progress: _Progress, now: int) -> bool:
        assert progress.true_since is not None
        if now - progress.true_since + 1 < rule.holds or (rule.once and progress.fired_at is not None):
            return False
        if rule.cooldown is None:
            return not progress.fired
        return progress.fired_at is None or now - progress.fired_at >= rule.cooldown

    @staticmethod
    def _fire(rule: Rule, tick: Tick, names: Mapping[str, Value], judgement: Judgement) -> None:
        seen = _shown({str(reference): names[str(reference)] for reference in rule.when.references})
        judgement.notices.append(Notice(rule.by, rule.notify or f"{rule.when.text} holds.", tick.step, seen))
        numbers = ", ".join(f"{name} = {value:.6g}" for name, value in seen.items() if isinstance(value, float))
        why = f"{rule.when.text} at step {tick.step}" + (f" ({numbers})" if numbers else "")
        for order in rule.do:
            try:
                action = Action(order.kind, order.valued(names), by=rule.by, why=why)
            except NO_VALUE as error:
                action = Action(order.kind, order.texts, by=rule.by, why=why)
                reason = f"an expression has no value at step {tick.step}: {error}"
                judgement.refusals.append(Refusal(action, reason))
            else:
                judgement.wishes.append(Wish(action, rule.priority))

    def _names(self, rule: Rule, tick: Tick, parameters: Mapping[str, Value]) -> dict[str, Value]:
        names: dict[str, Value] = {f"{PARAMETERS}.{name}": value for name, value in parameters.items()}
        names |= {"step": float(tick.step), "time": tick.time}
        for reference in rule.references:
            names[str(reference)] = self._series[reference.source].read(reference.over_steps, reference.span)
        return names


def settle(wishes: Sequence[Wish]) -> tuple[list[Action], list[Refusal]]:
    """Return what is asked of the simulation of all that is wanted at one tick, and what is refused by whom.

    >>> up, down = Action("set", {"feed": 0.04}, by="rule:up"), Action("set", {"feed": 0.02}, by="rule:down")
    >>> [refusal.reason for refusal in settle([Wish(up), Wish(down)])[1]]  # doctest: +ELLIPSIS
    ["fights over 'feed' with rule:down, ...", "fights over 'feed' with rule:up, ..."]
    >>> [action.by for action in settle([Wish(up, priority=1), Wish(down)])[0]]
    ['rule:up']
    """
    granted: list[Action] = []
    refused: list[Refusal] = []
    for wish in wishes:
        rivals = [(other, over) for other in wishes if other is not wish and (over := _fought_over(wish, other))]
        above = [rival for rival in rivals if rival[0].priority > wish.priority]
        equal = [rival for rival in rivals if rival[0].priority == wish.priority]
        if not above and not equal:
            granted.append(wish.action)
            continue
        other, over = (above or equal)[0]
        what = f"fights over '{over}' with {other.action.by}, which wants {_wanted(other.action, over)}"
        how = "has the higher priority" if above else "has the same priority: neither is applied"
        refused.append(Refusal(wish.action, f"{what} and {how}"))
    return granted, refused


def _fought_over(wish: Wish, other: Wish) -> str:
    """Say what two wishes cannot both have, or nothing."""
    ours, theirs = _claims(wish.action), _claims(other.action)
    return next((name for name, value in ours.items() if name in theirs and not _same(theirs[name], value)), "")


def _claims(action: Action) -> dict[str, Any]:
    """Say what an action decides on, and how."""
    if action.kind in ("pause", "resume"):
        return {"pause": action.describe()}
    return {name if action.kind == "set" else f"{action.kind}.{name}": value for name, value in action.values.items()}


def _wanted(action: Action, over: str) -> str:
    return str(_claims(action)[over])


def _same(a: Any, b: Any) -> bool:
    return np.array_equal(a, b)


def _shown(names: Mapping[str, Value]) -> dict[str, Value]:
    """Return what JSON can hold of the values."""
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else str(value)
        for name, value in names.items()
    }
