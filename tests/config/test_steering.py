# SPDX-License-Identifier: Apache-2.0
"""The section steering: its short forms, and what is found wrong with it before the run."""

from pathlib import Path

import numpy as np
import pytest

from insitu.config.rules import compiled, guessed, known
from insitu.model import Variable
from insitu.pipeline import Pipeline
from tests.config.yaml_files import load, mistakes

TEXT = """\
run: melt
simulation: {command: "true"}
operators:
  stats: {use: moments, of: u, over: step, window: 10}
  each: {use: moments, of: u, over: space}
  whole: {use: moments, of: u, over: [step, space]}
steering: STEERING
"""
OWN = '{controllers: {c: {use: "tests.config.thermostat:Thermostat", '

#: What stands under steering, the path of the mistake, and its text or the beginning of it. All on line 7.
MISTAKES = [
    ('[{when: "eech.max > 1", do: stop}]', "rules.0.when", 'no operator is called "eech"; did you mean "each"?'),
    ('[{when: "each.maxx > 1", do: stop}]', "rules.0.when", '"each" yields no "maxx"; did you mean "max"?'),
    ('[{when: "each.max", do: stop}]', "rules.0.when", '"each.max" is a number; expected a condition, such as'),
    ('[{when: "abbs(each.max) > 1", do: stop}]', "rules.0.when", 'no function is called "abbs"; did you mean "abs"?'),
    ('[{when: "stats.variance > 1", do: stop}]', "rules.0.when", '"stats.variance" is an array; say'),
    ('[{when: "whole.max > 1", do: stop}]', "rules.0.when", '"whole" yields its one result when the run has ended'),
    ('[{when: "step > 1", do: stop}]', "rules.0.when", '"step > 1" reads no result, and would never be judged'),
    ('[{when: "each.max > 1"}]', "rules.0", "does nothing; give it set, do or notify"),
    ('[{when: "each.max > 1", sett: {a: 1}}]', "rules.0.sett", 'unknown key; did you mean "set"?'),
    ('[{when: "each.max > 1", set: {a: "2 * eech.max"}}]', "rules.0.set.a", 'no operator is called "eech"; did you'),
    ('[{when: "each.max > 1", set: {a: upwind}}]', "rules.0.set.a", 'no operator is called "upwind" (known are stats'),
    ('[{when: "each.max > 1", set: {a: {b: 1}}}]', "rules.0.set.a", "expected a number, true or false, an expression"),
    ('[{when: "each.max > 1", do: {set: {}}}]', "rules.0.do.0", "set sets nothing"),
    ('[{when: "each.max > 1", do: [trate]}]', "rules.0.do.0", "trate needs to know how often"),
    ('[{when: "each.max > 1", do: [{stop: {now: 1}}]}]', "rules.0.do.0.stop.now", "stop takes no values"),
    ('[{when: "each.max > 1", do: [{resume: {step: 1}}]}]', "rules.0.do.0.resume.step", "resume takes steps"),
    ('[{when: "each.max > 1", do: [{a: {}, b: {}}]}]', "rules.0.do.0", "expected a word such as pause, or a mapping"),
    ('[{when: "each.max > 1", do: stop, for: 0}]', "rules.0.for", 'expected a number of published'),
    ('[{when: "each.max > 1", do: stop, for: 5 s}]', "rules.0.for", "expected a number of published steps"),
    ('{rulez: []}', "rulez", 'unknown key; did you mean "rules"? (known are max_wait'),
    ('{controllers: {c: {of: each}}}', "controllers.c.use", "is missing; expected the name of a con"),
    ('{controllers: {c: {use: pit, of: each}}}', "controllers.c.use", 'no controller is called "pit"'),
    (OWN + 'of: each}}}', "controllers.c.setpoint", "is missing; expected a number"),
    (OWN + 'of: eech, result: mean, setpoint: 1}}}', "controllers.c.of", 'no operator is called'),
    (OWN + 'of: whole, result: mean, setpoint: 1}}}', "controllers.c.of", '"whole" yields'),
    (OWN + 'of: each, result: mean, setpiont: 1}}}', "controllers.c.setpiont", "unknown key; did"),
    (OWN + 'of: each, setpoint: 1}}}', "controllers.c.result", '"each" yields several results, say which: count, mean'),
    (OWN + 'of: each, result: meen, setpoint: 1}}}', "controllers.c.result", '"each" yields no "meen"; did you'),
]  # fmt: skip


@pytest.mark.parametrize(("steering", "path", "message"), MISTAKES, ids=[case[0][:60] for case in MISTAKES])
def test_a_mistake_is_found_before_the_run(tmp_path: Path, steering: str, path: str, message: str) -> None:
    found = mistakes(tmp_path, TEXT.replace("STEERING", steering))
    assert f"melt.yaml:7: steering.{path}: {message}" in "\n".join(found)


def test_every_rule_of_a_list_has_its_own_line(tmp_path: Path) -> None:
    rules = '\n  - {when: "each.max > 0", do: stop}\n  - when: each.max > 0\n    do:\n      - set: {a: nought}'
    (mistake,) = mistakes(tmp_path, TEXT.replace(" STEERING", rules))
    assert mistake.startswith("melt.yaml:11: steering.rules.1.do.0.set.a: ")


def test_two_rules_have_two_names(tmp_path: Path) -> None:
    rule = '{name: hot, when: "each.max > 0", do: stop}'
    (mistake,) = mistakes(tmp_path, TEXT.replace("STEERING", f"[{rule}, {rule}]"))
    assert mistake == 'melt.yaml:7: steering.rules.1.name: another rule is called "hot" already'


def test_short_forms_mean_what_the_long_ones_say(tmp_path: Path) -> None:
    short = '[{when: "each.max > 0", set: {a: 1}, do: pause, for: 10 steps}]'
    long = '{rules: [{when: "each.max > 0", do: [{set: {a: 1}}, {pause: {}}], for: 10}]}'
    one, other = (
        compiled(each, guessed(each.operators))[0][0]
        for each in (load(tmp_path, TEXT.replace("STEERING", text)) for text in (short, long))
    )
    assert (one.do, one.holds, one.name) == (other.do, other.holds, other.name) == (other.do, 10, "rule_1")
    assert [order.kind for order in one.do] == ["set", "pause"]


def test_trate_takes_its_one_number_alone(tmp_path: Path) -> None:
    loaded = load(tmp_path, TEXT.replace("STEERING", '[{when: "each.max > 0", do: {trate: 10}}]'))
    assert loaded.steering.rules[0].do == ({"trate": {"every": 10}},)


def test_what_is_known_only_in_the_run_is_found_there_at_its_line(tmp_path: Path) -> None:
    text = '[{when: "each.max > parameters.fed", set: {feet: 1}}, {when: "stats.mean[0] > 0", do: stop}]'
    loaded = load(tmp_path, TEXT.replace("STEERING", text))
    described = Pipeline(loaded).describe({"u": Variable("u", np.dtype("f8"), (4, 4), ("y", "x"))})
    rules, problems = compiled(loaded, known(described, ["feed"]))
    assert rules == []
    assert [f"{problem.line} {problem.path}: {problem.message[:55]}" for problem in problems] == [
        '7 steering.rules.0.when: the simulation has no parameter "fed"; did you mean "fe',
        '7 steering.rules.0.set.feet: the simulation has no parameter "feet"; did you mean "f',
        '7 steering.rules.1.when: "stats.mean" is an array; of its numbers [0] is none: i',
    ]


UNTIL = TEXT.replace("steering: STEERING", "  ways: {use: sobol, of: w, parameters: 2, UNTIL}\nsteering: STEERING")


def test_until_is_short_for_a_rule(tmp_path: Path) -> None:
    """One mechanism: what stands under the operator is, compiled, the rule that one would have written."""
    by_hand = '[{name: ways_until, when: "ways.interval.max <= 0.05", do: stop, once: true}]'
    short = load(tmp_path, UNTIL.replace("UNTIL", "until: {interval: 0.05}").replace("STEERING", "[]"))
    long = load(tmp_path, UNTIL.replace(", UNTIL", "").replace("STEERING", by_hand))
    for dims, when in (("member",), "ways.interval"), (("member", "y"), "ways.interval.max"):
        w = Variable("w", np.dtype("f8"), (8,) * len(dims), dims)
        described = Pipeline(short).describe({"w": w}, lacking=None)
        (rule,), problems = compiled(short, known(described, []))
        assert (problems, rule.when.text) == ([], f"{when} <= 0.05")
    (other,), _ = compiled(long, known(described, []))
    assert all(getattr(rule, key) == getattr(other, key) for key in ("name", "do", "once", "holds", "references"))
    assert rule.when.text == other.when.text


@pytest.mark.parametrize(
    ("until", "rules", "text"),
    [
        ("{interval: 1, intervall: 1}", "[]", '7: operators.ways.until.intervall: unknown key; did you mean "inter'),
        ("{interval: 0}", "[]", "7: operators.ways.until.interval: expected a number above 0, got 0"),
        (
            "{interval: 0.1}",
            '[{name: ways_until, when: "each.max > 0", do: stop}]',
            '7: operators.ways.until: another rule is called "ways_until" already',
        ),
    ],
)
def test_a_mistake_in_until_has_its_line(tmp_path: Path, until: str, rules: str, text: str) -> None:
    mistake, *_ = mistakes(tmp_path, UNTIL.replace("UNTIL", f"until: {until}").replace("STEERING", rules))
    assert mistake.startswith(f"melt.yaml:{text}")
