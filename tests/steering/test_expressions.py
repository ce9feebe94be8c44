# SPDX-License-Identifier: Apache-2.0
"""Expressions say what they seem to say, reach nothing else, and name what is wrong with them."""

import contextlib
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.errors import ConfigError
from insitu.steering.expressions import MAX_CHARACTERS, Expression
from insitu.steering.rules import NO_VALUE
from insitu.steering.series import OVER_CELLS, OVER_STEPS
from insitu.steering.vocabulary import Vocabulary

WORDS = Vocabulary(
    {
        "stats": {"mean": 2, "max": 2, "count": 0},
        "energy": {"total": 0},
        "modes": {"values": 1, "residual": 0},
        "far": None,
    },
    ["feed", "solver"],
)
VALUES = {
    "stats.max.max": 3.0, "stats.mean.min": -1.0, "stats.count": 64.0,
    "energy.total": 2.0, "energy.total.previous": -1.0,
    "modes.values[0]": 9.0, "modes.residual": 0.5, "modes.residual.ewm(20)": 0.4, "modes.residual.mean": 0.1,
    "far.away": 7.0, "parameters.feed": 0.04, "parameters.solver": "cg", "step": 10.0, "time": 0.5,
}  # fmt: skip

MEANINGS = [
    ("stats.max > 0.9", True, "condition", ["stats.max.max"]),
    ("stats.max.max > 0.9", True, "condition", ["stats.max.max"]),
    ("modes.residual.ewm(20) > 3 * modes.residual.mean", True, "condition", None),
    ("crossing(energy, 0)", True, "condition", ["energy.total", "energy.total.previous"]),
    ("crossing(energy.total, 5)", False, "condition", None),
    ("energy", 2.0, "number", ["energy.total"]),
    ("energy.last", 2.0, "number", ["energy.total"]),
    ("modes.values[0] / 3", 3.0, "number", ["modes.values[0]"]),
    ("far.away + 1", 8.0, "number", ["far.away"]),
    ("0.5 * parameters.feed", 0.02, "number", []),
    ("parameters.solver == 'cg'", True, "condition", []),
    ("'cg' if step > 5 else 'gmres'", "cg", "text", []),
    ("clip(stats.count, 0, 10) + min(1, 2, 3)", 11.0, "number", None),
    ("not (energy > 1 and time < 0.1)", True, "condition", None),
    ("0 < energy < 3", True, "condition", None),
    ("-energy ** 2 % 3", 2.0, "number", None),
    ("isnan(energy) or isfinite(energy)", True, "condition", None),
    ("True", True, "condition", []),
]  # fmt: skip

MISTAKES = [
    ("stat.max > 1", '"stat"; did you mean "stats"? (known are stats, energy, modes, far, parameters, step, time; a '),
    ("stats.maxx > 1", '"stats" yields no "maxx"; did you mean "max"? (it yields mean, max, count)'),
    ("stats > 1", '"stats" yields several results, say which: mean, max, count'),
    ("modes.values > 1", '"modes.values" is an array; say which number of it is meant, by one of max, min, mean, or '),
    ("energy.ewn(20) > 1", 'energy.total has no "ewn"; did you mean "ewm"?'),
    ("energy.ewm > 1", "energy.total.ewm: write ewm(20), with the number of results"),
    ("energy.mean(3) > 1", "energy.total.mean: write mean, without parentheses"),
    ("energy.ewm(0) > 1", "energy.total.ewm(0): the number of results must be at least 1"),
    ("energy.mean.max > 1", "energy.total.mean is a number, nothing follows it"),
    ("crosing(energy, 0)", 'no function is called "crosing"; did you mean "crossing"? (known are abs, '),
    ("crossing(energy)", "crossing takes 2 arguments, without names, got 1"),
    ("crossing(2 * energy, 0)", 'crossing looks back at a result, and "2 * energy" is none'),
    ("crossing(energy.mean, 0)", "crossing looks back at a result, and energy.total.mean is none"),
    ("max(1)", "max takes 2 or more arguments"),
    ("clip(energy, low=0, high=1)", "clip takes 3 arguments, without names, got 3"),
    ("parameters.fed", 'the simulation has no parameter "fed"; did you mean "feed"? (it has feed, solver)'),
    ("parameters", "parameters is followed by the name of one parameter"),
    ("energy and True", '"energy" is a number where a condition is needed, such as "energy" > 0'),
    ("energy + 'a'", "\"'a'\" is a text where a number is needed"),
    ("energy == 'a'", "compares a number with a text, which are never equal"),
    ("'a' < 'b'", "a text is neither larger nor smaller than another; compare it by == or !="),
    ("energy > ", '"energy > " is no expression: invalid syntax'),
    ("1 if energy > 0 else 'a'", "is a number in one case and a text in the other"),
    ("energy " + "+ 1" * 500, f"characters long, and an expression has at most {MAX_CHARACTERS}"),
]  # fmt: skip

#: What a safe evaluator must never let through.
ATTACKS = [
    "().__class__.__bases__", "energy.__class__", "energy.total.__init__", "__import__('os').system('true')",
    "open('/etc/passwd')", "eval('1')", "(lambda: 1)()", "[x for x in (1, 2)]", "{1: 2}", "f'{energy}'", "(y := 3)",
    "'{0.__class__}'.format(1)", "energy.total.ewm(10 ** 9)", "energy[0:1]", "b'a'", "...", "1 if 1 else 2", "1j",
    "'a' * 10 ** 9", "1 << 10 ** 9", "1 in (1, 2)", "energy is energy", "abs(*[1])", "print(1)", "crossing.__self__",
    "-" * 200 + "1", "not " * 100 + "True", "1" * 400, "\0", "energy.total" + ".last" * 50,
]  # fmt: skip


@pytest.mark.parametrize(("text", "value", "kind", "references"), MEANINGS, ids=[case[0] for case in MEANINGS])
def test_an_expression_means_what_it_says(text: str, value: object, kind: str, references: list[str] | None) -> None:
    expression = Expression(text, WORDS)
    assert expression(VALUES) == pytest.approx(value)
    assert expression.kind == kind
    if references is not None:
        assert [str(each) for each in expression.references] == references


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[case[0][:40] for case in MISTAKES])
def test_a_mistake_is_named_with_the_nearest_word(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Expression(text, WORDS)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ATTACKS)
def test_what_is_not_in_the_vocabulary_is_refused_before_anything_is_computed(text: str) -> None:
    with pytest.raises(ConfigError):
        Expression(text, WORDS)


@pytest.mark.parametrize("text", ["9 ** 9 ** 9", "10.0 ** 400", "1 / 0", "sqrt(-1)", "log(0)", "exp(1000)", "0 ** -1"])
def test_no_value_is_an_error_in_words_and_takes_no_time(text: str) -> None:
    expression, begin = Expression(text, WORDS), time.perf_counter()
    with pytest.raises(NO_VALUE):
        expression({})
    assert time.perf_counter() - begin < 0.1


@given(st.text(alphabet="energy.stamodlvu()[]0123456789+-*/%<>=! '\"_,:{}", max_size=60))
def test_any_text_is_an_expression_or_a_mistake(text: str) -> None:
    try:
        expression = Expression(text, WORDS)
    except ConfigError:
        return
    with contextlib.suppress(*NO_VALUE):
        expression({str(each): 1.0 for each in expression.references} | VALUES)


numbers = st.floats(-1e3, 1e3).map(lambda x: f"{abs(x)!r}")
arithmetic = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({' '.join(parts)})"),
    max_leaves=20,
)


@given(arithmetic)
def test_arithmetic_is_pythons_in_floats(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        return
    ours, pythons = Expression(text, WORDS)({}), float(eval(text))
    assert ours == pythons or (isinstance(ours, float) and math.isnan(ours) and math.isnan(pythons))


def test_every_word_of_the_vocabulary_can_be_used() -> None:
    for word in OVER_CELLS:
        assert Expression(f"stats.mean.{word} > 0", WORDS).kind == "condition"
    for word in OVER_STEPS:
        assert Expression(f"energy.{word}{'(5)' if word == 'ewm' else ''} > 0", WORDS).kind == "condition"
