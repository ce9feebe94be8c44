# SPDX-License-Identifier: Apache-2.0
"""Rules and controllers at work on results, beside a simulation that only writes down what it was asked."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import PrivateAttr

from insitu.controller import decisions as module
from insitu.controller.decisions import Decisions, observed, steered
from insitu.model import Variable
from insitu.results import Provenance, Result
from insitu.steering.actions import Action, Receipt
from insitu.steering.controller import Controller, Parameters
from insitu.steering.lockstep import Observation
from insitu.wire.messages import Event
from tests.config.yaml_files import load
from tests.waiting import wait_until

TEXT = """\
run: melt
simulation: {command: "true"}
operators:
  each: {use: moments, of: u, over: space}
  stats: {use: moments, of: u, over: step, window: 2}
  other: {use: moments, of: u, over: space}
steering: STEERING
"""
HERE = "tests.controller.test_decisions"
U = {"u": Variable("u", np.dtype("f8"), (4,), ("x",))}
#: How decisions call what the controller `pump` sets.
PUMP = ("controller:pump", "set", ("feed",))
#: Ends what a test has made to hang.
RELEASE = threading.Event()


class Follow(Controller):
    """Sets the feed to what it sees, and raises, hangs or talks nonsense at a step of one's choice."""

    raises_at: int = -1
    hangs_at: int = -1
    nonsense_at: int = -1
    _seen: list[float] = PrivateAttr(default_factory=list)

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        step = result.provenance.last_step
        if step == self.raises_at:
            raise RuntimeError("no such model")
        if step == self.hangs_at:
            RELEASE.wait(30.0)
        if step == self.nonsense_at:
            return ["feed"]  # type: ignore[list-item]
        self._seen.append(float(result.arrays["max"].max()))
        return [Action("set", {"feed": sum(self._seen)}, by="somebody else", why="seen")]


class Predicts(Controller):
    """Sets the feed to what the newest version of a network makes of what it sees, and to 0 before there is one."""

    model: str

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        network = self.trained_model(self.model)
        if network is None:
            return [Action("set", {"feed": 0.0}, why="nothing is trained")]
        return [Action("set", {"feed": float(network([result.arrays["max"]])[0])}, why=f"version {network.number}")]


class Handle:
    """An action that is applied when the test says so, or at once."""

    def __init__(self, action: Action) -> None:
        self.action = action
        self.calls: list[Any] = []

    def then(self, call: Any) -> None:
        self.calls.append(call)

    def settle(self) -> None:
        for call in self.calls:
            call(Receipt(self.action, "applied"))


class Simulation:
    """Takes actions and has two parameters."""

    def __init__(self) -> None:
        self.asked: list[Action] = []
        self.refused: list[tuple[Action, str]] = []
        self.handles: list[Handle] = []
        self.at_once = True

        self.values: Mapping[str, Any] = {"feed": 0.04, "kill": 0.06}
        self.names = tuple(self.values)

    def ask(self, action: Action) -> Handle:
        self.asked.append(action)
        self.handles.append(Handle(action))
        if self.at_once:
            self.handles[-1].then = lambda call: call(Receipt(action, "applied"))  # type: ignore[method-assign]
        return self.handles[-1]

    def refuse(self, action: Action, reason: str) -> None:
        self.refused.append((action, reason))


class Deciding:
    """Decisions, and what came of them."""

    def __init__(self, folder: Path, steering: str) -> None:
        self.config = load(folder, TEXT.replace("STEERING", steering))
        self.simulation = Simulation()
        self.events: list[Event] = []
        self.decisions = Decisions(self.config, folder, lambda source, event: self.events.append(event))
        self.decisions.begin(self.simulation)
        self.decisions.describe({name: self.config.operators[name].describe(U) for name in steered(self.config)})

    def show(self, operator: str, *maxima: float, first: int = 0, gathered: bool = True) -> None:
        """Let results of an operator come, one after another."""
        length = {"stats": 2}.get(operator, 1)
        for k, value in enumerate(maxima, first):
            low, high = k * length, (k + 1) * length - 1
            cells = np.array([0.0, value]) if operator == "stats" else np.array(value)
            result = Result(operator, Provenance(k, low, high, float(high), length, 0, complete=True), {"max": cells})
            whole = observed(result, low, high, self.decisions.sources[operator])
            self.decisions.observe(
                [whole if gathered else Observation(operator, low, high, result.provenance, whole.numbers)]
            )

    def end(self) -> "Deciding":
        self.decisions.close()
        return self

    @property
    def asked(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [(action.by, action.kind, dict(action.values)) for action in self.simulation.asked]

    def told(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


@pytest.fixture
def decide(tmp_path: Path) -> Iterator[Any]:
    made: list[Deciding] = []
    RELEASE.clear()

    def make(steering: str) -> Deciding:
        made.append(Deciding(tmp_path, steering))
        return made[-1]

    yield make
    RELEASE.set()
    for each in made:
        each.end()
        for thread in threading.enumerate():
            if thread.name.startswith("insitu-"):
                thread.join(10.0)


def test_a_rule_asks_once_for_what_follows_and_tells_of_it(decide: Any) -> None:
    run = decide('[{name: hot, when: "each.max > 1", set: {feed: 0.5 * parameters.feed}, notify: too hot}]')
    run.show("each", 0.0, 2.0, 3.0)
    run.end()
    assert run.asked == [("rule:hot", "set", {"feed": 0.02})]
    (fired,) = run.told("rule-fired")
    assert fired.text == "rule:hot: too hot"
    assert fired.details == {"by": "rule:hot", "step": 1, "each.max": 2.0}


def test_numbers_of_arrays_that_stay_elsewhere_are_enough_for_rules(decide: Any) -> None:
    run = decide('[{when: "stats.max.mean > 1", do: stop}]')
    run.show("stats", 1.0, 4.0, gathered=False)
    assert [action[1] for action in run.end().asked] == ["stop"]


def test_of_two_rules_that_fight_neither_is_asked_for(decide: Any) -> None:
    rule = '{{name: {}, when: "{}.max > 1", set: {{feed: {}}}}}'
    run = decide(f"[{rule.format('up', 'each', 1)}, {rule.format('down', 'other', 2)}]")
    run.show("each", 2.0, 0.0, 2.0)
    run.show("other", 2.0, 2.0, 2.0)
    run.end()
    assert run.asked == [("rule:up", "set", {"feed": 1})]  # at step 2, where only the first fires
    reasons = [(action.by, reason) for action, reason in run.simulation.refused]
    assert [by for by, _ in reasons] == ["rule:up", "rule:down"]
    assert "fights over 'feed' with rule:down, which wants 2" in reasons[0][1]
    assert "fights over 'feed' with rule:up, which wants 1" in reasons[1][1]


def test_a_controller_remembers_and_signs_with_its_name(decide: Any) -> None:
    run = decide(f'{{controllers: {{pump: {{use: "{HERE}:Follow", of: each}}}}}}')
    run.show("each", 1.0, 2.0, 3.0)
    assert run.end().asked == [("controller:pump", "set", {"feed": total}) for total in (1.0, 3.0, 6.0)]
    assert run.simulation.asked[0].why == "seen"


def test_of_what_one_asker_wants_again_and_again_only_the_newest_waits(decide: Any) -> None:
    """A controller that looks at every step asks faster than all ranks can agree."""
    run = decide(f'{{controllers: {{pump: {{use: "{HERE}:Follow", of: each}}}}}}')
    run.simulation.at_once = False
    run.show("each", *[1.0] * 5)
    wait_until(lambda: run.decisions._next.get(PUMP, Action("")).values == {"feed": 5.0}, 60.0, "five results judged")
    assert [action.values for action in run.simulation.asked] == [{"feed": 1.0}]
    run.simulation.handles[0].settle()
    wait_until(lambda: len(run.simulation.asked) == 2, 60.0, "the newest")
    run.end()
    assert [action.values for action in run.simulation.asked] == [{"feed": 1.0}, {"feed": 5.0}]


def test_what_waited_is_not_asked_for_after_what_is_newer(decide: Any) -> None:
    """The first action is settled while a later result is being judged: what waited since before gives way to it."""
    run = decide(f'{{controllers: {{pump: {{use: "{HERE}:Follow", of: each, hangs_at: 2}}}}}}')
    run.simulation.at_once = False
    run.show("each", 1.0, 1.0, 1.0)
    wait_until(lambda: run.decisions._next.get(PUMP, Action("")).values == {"feed": 2.0}, 60.0, "two results judged")
    run.simulation.handles[0].settle()
    RELEASE.set()
    wait_until(lambda: len(run.simulation.asked) == 2, 60.0, "the newest")
    run.simulation.handles[1].settle()
    run.end()
    assert [action.values for action in run.simulation.asked] == [{"feed": 1.0}, {"feed": 3.0}]


def test_a_controller_has_what_the_run_trains(decide: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from analytics.nn.learning import network_of
    from analytics.nn.predicting import predict
    from analytics.nn.samples import Shapes
    from analytics.nn.specs import Training
    from analytics.nn.versions import write_version

    run = decide(f'{{controllers: {{asks: {{use: "{HERE}:Predicts", of: each, model: net, max_time: 60}}}}}}')
    run.show("each", 1.0)
    wait_until(lambda: run.asked, what="the first result to be looked at")
    shapes = Shapes(inputs=(1,), targets=(1,))
    specs = [Training.model_validate({"model": {"kind": "mlp", "hidden": [width]}}) for width in (2, 3)]
    networks = [network_of(spec, shapes) for spec in specs]
    for k, (spec, network) in enumerate(zip(specs, networks, strict=True), 1):
        write_version(tmp_path / "models", "net", network, spec, shapes, {})
        run.show("each", 2.0 * k, first=k)
        wait_until(lambda k=k: len(run.asked) > k, 60.0, "the next one")
    run.end()
    assert [action.why for action in run.simulation.asked] == ["nothing is trained", "version 1", "version 2"]
    expected = [0.0, *(float(predict(net, np.float32([[2.0 * k]]))[0, 0]) for k, net in enumerate(networks, 1))]
    np.testing.assert_allclose([action.values["feed"] for action in run.simulation.asked], expected, rtol=1e-6)


def test_two_runs_of_one_configuration_do_not_share_what_a_controller_knows(decide: Any, tmp_path: Path) -> None:
    run = decide(f'{{controllers: {{pump: {{use: "{HERE}:Follow", of: each}}}}}}')
    run.show("each", 1.0)
    run.end()
    run.decisions = Decisions(run.config, tmp_path, lambda *_: None)
    run.decisions.begin(run.simulation)
    run.decisions.describe({"each": run.config.operators["each"].describe(U)})
    run.show("each", 1.0)
    assert run.end().asked == [("controller:pump", "set", {"feed": 1.0})] * 2


STOPPED = [
    ("raises_at: 1", "RuntimeError: no such model"),
    ("hangs_at: 1, max_time: 0.05", "It took longer than max_time, 0.05 s, for one result."),
    ("nonsense_at: 1", "TypeError: on_result returned 'feed', which is no Action"),
]


@pytest.mark.parametrize(("keys", "reason"), STOPPED)
def test_a_controller_that_fails_is_stopped_by_name_and_the_others_go_on(decide: Any, keys: str, reason: str) -> None:
    both = f'bad: {{use: "{HERE}:Follow", of: each, {keys}}}, good: {{use: "{HERE}:Follow", of: other}}'
    run = decide(f"{{controllers: {{{both}}}}}")
    run.show("each", 1.0, 1.0, 1.0)
    run.show("other", 1.0, 1.0, 1.0)
    run.end()
    assert [by for by, *_ in run.asked].count("controller:bad") == (0 if run.simulation.refused else 1)
    assert run.decisions.failures == {"controller 'bad'": reason}
    (event,) = run.told("controller-stopped")
    assert event.text == f"Controller 'bad' is stopped: {reason}"
    assert [values["feed"] for by, _, values in run.asked if by == "controller:good"][-2:] == [2.0, 3.0]


def test_a_controller_of_results_that_are_not_gathered_is_told_so(decide: Any) -> None:
    run = decide(f'{{controllers: {{pump: {{use: "{HERE}:Follow", of: stats}}}}}}')
    run.show("stats", 1.0, gathered=False)
    assert "The results of 'stats' are too large to be gathered" in run.end().decisions.failures["controller 'pump'"]


def test_rules_that_read_a_stopped_operator_end_and_the_others_go_on(decide: Any) -> None:
    run = decide('[{when: "each.max > other.max", do: stop}, {when: "each.max > 0", do: pause}]')
    run.decisions.fail("other")
    run.show("each", 1.0)
    assert [action[1] for action in run.end().asked] == ["pause"]
    assert run.decisions.failures == {"rule 'rule_1'": "it reads operator 'other', which was stopped"}


def test_a_parameter_that_nobody_has_is_a_mistake_of_its_line(decide: Any) -> None:
    run = decide('[{when: "each.max > 0", set: {fed: 1}}]')
    run.show("each", 1.0)
    run.end()
    assert [str(problem).rpartition("/")[2] for problem in run.decisions.problems] == [
        'melt.yaml:7: steering.rules.0.set.fed: the simulation has no parameter "fed"; did you mean "feed"? '
        "(it has feed, kill)"
    ]
    assert run.asked == []


def test_what_waits_is_bounded_and_what_is_left_out_is_told_once(decide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    run = decide(f'{{controllers: {{pump: {{use: "{HERE}:Follow", of: each, hangs_at: 0}}}}}}')
    run.show("each", *[1.0] * 20)
    RELEASE.set()
    run.end()
    assert 3 <= len(run.asked) <= 5
    (event,) = run.told("not-judged")
    assert "slower than the run" in event.text
