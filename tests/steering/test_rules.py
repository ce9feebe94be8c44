# SPDX-License-Identifier: Apache-2.0
"""When rules fire, what they then want, and who has its way when two want different things."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.results import Provenance
from insitu.steering.actions import Action
from insitu.steering.expressions import Expression
from insitu.steering.lockstep import Observation, Tick
from insitu.steering.rules import Judgement, Order, Rule, Rules, Wish, settle
from insitu.steering.vocabulary import Vocabulary

WORDS = Vocabulary({"x": {"value": 0}, "y": {"value": 0}}, ["feed"])


def rule(when: str = "x > 0", name: str = "r", **keys: Any) -> Rule:
    orders = (Order("set", {"feed": Expression("0.5 * parameters.feed + x", WORDS)}),)
    return Rule(name, Expression(when, WORDS), **{"do": orders, **keys})


def tick(sequence: int, length: int = 1, **numbers: float) -> Tick:
    provenance = Provenance(sequence, sequence, sequence, 0.1 * sequence, length, 0, complete=True)
    return Tick(
        sequence,
        tuple(
            Observation(
                name, sequence - length + 1, sequence, provenance, {Expression(name, WORDS).references[0]: number}
            )
            for name, number in numbers.items()
        ),
    )


def judged(rules: Rules, one: Tick, feed: float = 1.0) -> Judgement:
    judgement = Judgement()
    rules.judge(one, {"feed": feed}, judgement)
    return judgement


def judge(rules: Rules, numbers: list[float], length: int = 1) -> list[Judgement]:
    return [judged(rules, tick((k + 1) * length - 1, length, x=number), 2.0) for k, number in enumerate(numbers)]


def fired(rules: Rules, numbers: list[float], length: int = 1) -> list[int]:
    return [k for k, judgement in enumerate(judge(rules, numbers, length)) if judgement.wishes]


def when_it_should(true: list[bool], holds: int, cooldown: int | None, once: bool) -> list[int]:
    """The words of the documentation, step by step, with all of the past at hand."""
    fires: list[int] = []
    for now in range(len(true)):
        stretch = next((k for k in range(now + 1) if not true[now - k]), now + 1)
        if stretch < holds or stretch == 0 or (once and fires):
            continue
        began = now - stretch + 1
        again = cooldown is not None and (not fires or now - fires[-1] >= cooldown)
        if again or (cooldown is None and not any(fire >= began for fire in fires)):
            fires.append(now)
    return fires


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 6)), st.booleans())
def test_a_rule_fires_when_its_words_say(true: list[bool], holds: int, cooldown: int | None, once: bool) -> None:
    rules = Rules([rule(holds=holds, cooldown=cooldown, once=once)])
    numbers = [1.0 if each else -1.0 for each in true]
    assert fired(rules, numbers) == when_it_should(true, holds, cooldown, once)


def test_a_rule_that_is_off_is_not_judged_and_begins_anew() -> None:
    rules, fires = Rules([rule(holds=3), rule("x > 0", "other", holds=3)]), []
    for sequence in range(10):
        judgement = Judgement()
        rules.judge(tick(sequence, x=1.0), {"feed": 1.0}, judgement, off={"r"} if sequence < 5 else ())
        fires += [(sequence, wish.action.by) for wish in judgement.wishes]
    assert fires == [(2, "rule:other"), (7, "rule:r")]


def test_windows_count_as_the_steps_that_they_cover() -> None:
    assert fired(Rules([rule(holds=10)]), [1.0, 1.0, 1.0], length=5) == [1]
    assert fired(Rules([rule(cooldown=10)]), [1.0] * 5, length=5) == [0, 2, 4]


def test_a_value_is_computed_from_results_and_parameters_as_they_are() -> None:
    (judgement,) = judge(Rules([rule()]), [3.0])
    (wish,) = judgement.wishes
    assert (wish.action.kind, wish.action.values, wish.action.by) == ("set", {"feed": 4.0}, "rule:r")
    assert wish.action.why == "x > 0 at step 0 (x.value = 3)"
    assert [(notice.text, notice.values) for notice in judgement.notices] == [("x > 0 holds.", {"x.value": 3.0})]


def test_a_rule_is_judged_only_once_all_that_it_reads_has_been_seen() -> None:
    rules = Rules([rule("x > y")])
    assert not judged(rules, tick(0, x=1.0)).wishes
    assert judged(rules, tick(1, x=1.0, y=0.0)).wishes


def test_every_number_goes_into_a_mean_though_the_rule_stops_at_its_first_part() -> None:
    rules = Rules([rule("x > 100 and y.mean > 1 or y.mean == 2")])
    wished = [bool(judged(rules, tick(k, x=0.0, y=value)).wishes) for k, value in enumerate((0.0, 2.0, 4.0))]
    assert wished == [False, False, True]


def test_a_condition_without_a_value_is_not_true_and_is_told_once() -> None:
    judgements = judge(Rules([rule("1 / x > 0")]), [0.0, 0.0, 1.0])
    assert [len(each.wishes) for each in judgements] == [0, 0, 1]
    assert [notice.text for each in judgements for notice in each.notices if notice.fault] == [
        "1 / x > 0 has no value at step 0, and counts as not true: float division by zero"
    ]


def test_an_action_without_a_value_is_refused_with_the_reason() -> None:
    order = Order("set", {"feed": Expression("1 / (x - 1)", WORDS)})
    (judgement,) = judge(Rules([rule(do=(order,))]), [1.0])
    ((refusal),) = judgement.refusals
    assert not judgement.wishes
    assert refusal.action.values == {"feed": "1 / (x - 1)"}
    assert refusal.reason == "an expression has no value at step 0: float division by zero"


def test_nan_makes_no_comparison_true() -> None:
    assert fired(Rules([rule("x > 0 or x < 0 or x == 0")]), [math.nan]) == []
    assert fired(Rules([rule("isnan(x)")]), [math.nan]) == [0]


def test_a_rule_whose_operator_was_stopped_is_dropped_by_name() -> None:
    rules = Rules([rule(name="a"), rule("y > 0", "b", do=())])
    assert rules.drop("x") == ["a"]
    assert fired(rules, [1.0]) == []


SETTLED = [
    ([("a", "set", {"f": 1.0}, 0), ("b", "set", {"g": 1.0}, 0)], ["a", "b"]),
    ([("a", "set", {"f": 1.0}, 0), ("b", "set", {"f": 1.0}, 0)], ["a", "b"]),
    ([("a", "set", {"f": 1.0}, 0), ("b", "set", {"f": 2.0}, 0)], []),
    ([("a", "set", {"f": 1.0}, 1), ("b", "set", {"f": 2.0}, 0)], ["a"]),
    ([("a", "set", {"f": 1.0, "g": 1.0}, 0), ("b", "set", {"f": 2.0}, 0), ("c", "set", {"h": 1.0}, 0)], ["c"]),
    ([("a", "set", {"f": 1.0}, 1), ("b", "set", {"f": 2.0}, 1), ("c", "set", {"f": 3.0}, 0)], []),
    ([("a", "pause", {}, 0), ("b", "resume", {}, 0)], []),
    ([("a", "pause", {}, 0), ("b", "pause", {}, 0)], ["a", "b"]),
    ([("a", "trate", {"every": 2}, 0), ("b", "trate", {"every": 3}, 0)], []),
    ([("a", "set", {"every": 2}, 0), ("b", "trate", {"every": 3}, 0)], ["a", "b"]),
    ([("a", "stop", {}, 0), ("b", "set", {"f": 3}, 0)], ["a", "b"]),
    ([("a", "set", {"f": np.zeros(3)}, 0), ("b", "set", {"f": np.ones(3)}, 0)], []),
    ([("a", "set", {"f": np.zeros(3)}, 0), ("b", "set", {"f": np.zeros(3)}, 0)], ["a", "b"]),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "granted"), SETTLED)
def test_of_two_that_fight_neither_or_the_higher_priority_has_its_way(
    wanted: list[tuple[str, str, dict[str, Any], int]], granted: list[str]
) -> None:
    wishes = [Wish(Action(kind, values, by=by), priority) for by, kind, values, priority in wanted]
    actions, refusals = settle(wishes)
    assert [action.by for action in actions] == granted
    assert {action.by for action in actions} | {refusal.action.by for refusal in refusals} == {
        wish[0] for wish in wanted
    }
    for refusal in refusals:
        rivals = [by for by, *_ in wanted if by != refusal.action.by]
        assert any(f" with {by}, " in refusal.reason for by in rivals)


def test_the_refusal_says_what_the_other_wanted() -> None:
    wishes = [Wish(Action("set", {"f": 1.0}, by="rule:up")), Wish(Action("set", {"f": 2.0}, by="controller:c"), 3)]
    (refusal,) = settle(wishes)[1]
    assert refusal.reason == "fights over 'f' with controller:c, which wants 2.0 and has the higher priority"
