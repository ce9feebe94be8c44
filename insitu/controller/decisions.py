# SPDX-License-Identifier: Apache-2.0
"""Lets rules and controllers look at results while the run goes on, and passes on what they want.

Whoever has a result in hand calls `observe`, which returns at once. A thread of its own puts results together by their
steps, judges, settles what fights, and asks: so a slow controller keeps neither the results from the disk nor the
simulation from its steps. What waits is bounded: a step that finds `MAX_WAITING` results waiting is not judged, and the
log says how many were not.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from insitu.config import Config
from insitu.config.rules import compiled, guessed, known
from insitu.controller.guarded import ControllerStopped, Guarded
from insitu.errors import Problem
from insitu.learner import Learner
from insitu.model import Variable
from insitu.operator import Operator
from insitu.results import Result
from insitu.steering.actions import Action, Receipt
from insitu.steering.lockstep import Lockstep, Observation, Tick
from insitu.steering.parameters import Value
from insitu.steering.rules import Judgement, Notice, Rules, Wish, settle
from insitu.steering.series import Reference, number_of
from insitu.steering.vocabulary import Vocabulary
from insitu.wire.messages import Event

#: Results that may wait to be judged: of a run at 1,000 steps a second, ten seconds of one operator's.
MAX_WAITING = 10_000
#: Between windows of time lie so many steps that nobody waits for the next one: their results are ticks of their own.
UNKNOWN = 2**62
#: How long what still waits is judged when the run is over, for the log: the simulation no longer hears of it.
CLOSE_S = 5.0


#: Who asks, what kind of action, for which parameters.
Key = tuple[str, str, tuple[str, ...]]


class Asked(Protocol):
    """An action under way."""

    def then(self, call: Callable[[Receipt], None]) -> None:
        """Have `call` called, in any thread, when it is settled."""
        ...


class Simulated(Protocol):
    """What decisions need of whoever steers the simulation, from a thread of their own."""

    @property
    def values(self) -> Mapping[str, Value]:
        """The values that the parameters have now."""
        ...

    @property
    def names(self) -> Collection[str]:
        """What can be set, fields included."""
        ...

    def ask(self, action: Action) -> "Asked":
        """Ask for an action; its receipt is written by whoever agrees on it."""
        ...

    def refuse(self, action: Action, reason: str) -> object:
        """Write the receipt of an action that is not asked for."""
        ...


class Decisions:
    """What acts on the simulation of the run in `directory`. `journal` gets events, and `failures` what was stopped,
    and why.
    """

    def __init__(self, config: Config, directory: Path, journal: Callable[[str, Event], None]) -> None:
        #: Mistakes of the configuration that only the run could show.
        self.problems: list[Problem] = []
        self.failures: dict[str, str] = {}
        #: Of each operator that any rule or controller looks at, the numbers that rules need of its results.
        self.sources: dict[str, frozenset[Reference]] = dict.fromkeys(steered(config), frozenset())
        self._config = config
        self._names = tuple(rule.name for rule in compiled(config, guessed(config.operators))[0])
        self._simulation: Simulated
        self._journal = journal
        self._stopped: set[str] = set()
        self._under_way: set[Key] = set()
        self._next: dict[Key, Action] = {}
        self._off: frozenset[str] = frozenset()
        self._end = math.inf
        self._compiled: set[str] = set()
        self._rules: list[Rules] = []
        self._controllers = {name: Guarded(name, each, directory) for name, each in config.steering.controllers.items()}
        self._lockstep = Lockstep({name: length_of(config.operators[name]) for name in self.sources})
        self._waiting = 0
        self._left_out = 0
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], list[Tick]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="insitu-decisions", daemon=True)

    def begin(self, simulation: Simulated) -> None:
        """Say what is to be steered; before anything else is said."""
        self._simulation = simulation
        self._thread.start()

    @property
    def switches(self) -> dict[str, bool]:
        """Which rules the run has, and whether they are on. From any thread."""
        return {name: name not in self._off for name in self._names}

    def switch(self, switches: Mapping[str, bool]) -> None:
        """Switch rules on or off, from the next result on. From one thread only."""
        off = {name for name, on in {**self.switches, **switches}.items() if not on}
        self._off = frozenset(off)

    def describe(self, described: Mapping[str, Mapping[str, Variable]]) -> None:
        """Take note of what operators yield; said before the first result of any of them, and when more is known."""
        words = known(described, self._simulation.names)
        unknown = dict.fromkeys(set(self._config.operators) - set(described))
        rules, problems = compiled(self._config, Vocabulary({**unknown, **words.results}, words.parameters))
        new = [rule for rule in rules if rule.name not in self._compiled and rule.operators <= described.keys()]
        self.problems += [problem for problem in problems if problem not in self.problems]
        if not new:
            return
        judged = Rules(new)
        self._compiled |= {rule.name for rule in new}
        for source in judged.sources:
            self.sources[source.operator] |= {source}
        self._work.put(lambda: self._begin(judged))

    def observe(self, observations: Sequence[Observation]) -> None:
        """Take in results of one operator, in its order."""
        with self._lock:
            room = MAX_WAITING - self._waiting
            taken = observations[: max(0, room)]
            self._waiting += len(taken)
            self._left_out += len(observations) - len(taken)
        if len(taken) < len(observations) and self._left_out == len(observations) - len(taken):
            text = f"Rules and controllers are slower than the run: results of step {observations[-1].last} and later "
            self._journal("controller", Event("warning", "not-judged", text + "are not judged while so many wait."))
        self._work.put(lambda: self._take(taken))

    def fail(self, operator: str) -> None:
        """An operator was stopped: nothing more comes of it. May be said again."""
        if operator in self.sources and operator not in self._stopped:
            self._stopped.add(operator)
            self._work.put(lambda: self._without(operator))

    def close(self) -> None:
        """Judge what waits, for no longer than `CLOSE_S`, and end the threads. May be called twice."""
        self._end = time.monotonic() + CLOSE_S
        self._work.put(self._lockstep.finish)
        self._work.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        for name, controller in self._controllers.items():
            controller.close(wait=f"controller '{name}'" not in self.failures)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            for tick in work():
                if time.monotonic() < self._end:
                    self._judge(tick)

    def _begin(self, rules: Rules) -> list[Tick]:
        self._rules.append(rules)
        return []

    def _take(self, observations: Sequence[Observation]) -> list[Tick]:
        with self._lock:
            self._waiting -= len(observations)
        return self._lockstep.add(observations)

    def _without(self, operator: str) -> list[Tick]:
        for rules in self._rules:
            for name in rules.drop(operator):
                self._give_up(f"rule '{name}'", f"it reads operator '{operator}', which was stopped")
        return self._lockstep.fail(operator)

    def _judge(self, tick: Tick) -> None:
        parameters = dict(self._simulation.values)
        judgement = Judgement()
        for rules in self._rules:
            rules.judge(tick, parameters, judgement, self._off)
        for name, controller in self._controllers.items():
            if f"controller '{name}'" not in self.failures:
                judgement.wishes += self._call(name, controller, tick, parameters)
        for notice in judgement.notices:
            self._tell(notice)
        granted, refused = settle(judgement.wishes)
        for refusal in (*judgement.refusals, *refused):
            self._simulation.refuse(refusal.action, refusal.reason)
        for action in granted:
            self._ask(action)

    def _ask(self, action: Action) -> None:
        """Ask for an action, unless an earlier one of the same by the same is under way: then the newest one waits.

        Who looks at every step wants more than can be agreed on, and what it wanted then is not what it wants now.
        """
        key = (action.by, action.kind, tuple(sorted(action.values)))
        with self._lock:
            if key in self._under_way:
                self._next[key] = action
                return
            self._under_way.add(key)
        self._simulation.ask(action).then(lambda receipt: self._settled(key))

    def _settled(self, key: Key) -> None:
        """An action has its receipt; called in the thread of whoever wrote it."""
        with self._lock:
            if key not in self._next:
                self._under_way.discard(key)
                return
        # It stays under way until then: what is wanted meanwhile takes the place of what waits, and not its turn.
        self._work.put(lambda: self._ask_next(key))

    def _ask_next(self, key: Key) -> list[Tick]:
        with self._lock:
            action = self._next.pop(key)
        self._simulation.ask(action).then(lambda receipt: self._settled(key))
        return []

    def _call(self, name: str, controller: Guarded, tick: Tick, parameters: Mapping[str, Value]) -> list[Wish]:
        wishes: list[Wish] = []
        for observation in tick.observations:
            if observation.operator not in controller.of:
                continue
            try:
                wishes += [Wish(action, controller.priority) for action in controller(observation, parameters)]
            except ControllerStopped as error:
                self._give_up(f"controller '{name}'", str(error), error.trace)
                return []
        return wishes

    def _give_up(self, who: str, reason: str, trace: str = "") -> None:
        self.failures[who] = reason
        text = f"{who[0].upper()}{who[1:]} is stopped: {reason}"
        details = {"who": who, "reason": reason, **({"traceback": trace} if trace else {})}
        self._journal("controller", Event("error", "controller-stopped", text, details))

    def _tell(self, notice: Notice) -> None:
        kind = ("warning", "rule-without-value") if notice.fault else ("info", "rule-fired")
        details = {"by": notice.by, "step": notice.step, **notice.values}
        self._journal("controller", Event(*kind, f"{notice.by}: {notice.text}", details))


def steered(config: Config) -> tuple[str, ...]:
    """Return the operators that rules and controllers look at, in the order of the file."""
    rules, _ = compiled(config, guessed(config.operators))
    looked = {operator for rule in rules for operator in rule.operators}
    looked |= {operator for controller in config.steering.controllers.values() for operator in controller.of}
    return tuple(name for name in config.operators if name in looked)


def length_of(operator: Operator | Learner) -> int:
    """Return how many published steps lie between two results; very many where nobody knows: of windows of time, and
    of learners."""
    if isinstance(operator, Learner):
        return UNKNOWN
    if operator.keeps_steps:
        return 1
    spacing = operator.every or operator.window
    return spacing if isinstance(spacing, int) else UNKNOWN


def observed(result: Result, first: int, last: int, sources: Iterable[Reference]) -> Observation:
    """Return what is known of a result whose arrays are here."""
    numbers = {source: number_of(result.arrays[source.result], source.over_cells) for source in sources}
    return Observation(result.operator, first, last, result.provenance, numbers, result)
