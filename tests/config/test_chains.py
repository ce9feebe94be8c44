# SPDX-License-Identifier: Apache-2.0
"""Mistakes of operators behind operators, and of functions of a window, each with its line and cure."""

from pathlib import Path

import numpy as np
import pytest

from insitu.errors import ConfigError
from insitu.model import Variable
from insitu.pipeline import Pipeline
from tests.config.yaml_files import load, mistakes

HEAD = "run: melt\nsimulation: {command: [python, melt.py]}\noperators:\n"
STATS = "  stats: {use: moments, of: u, over: step, window: 10}\n"
FUNCTION = "tests.end_to_end.functions:picture"
U = Variable("u", np.dtype("f8"), (4, 6), ("y", "x"), "K")
ATOMS = Variable("x", np.dtype("f8"), None, ("atom", "axis"), row=(3,))


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        (
            "  a: {use: moments, of: stast.mean, over: step}\n",
            'a.of: no operator is called "stast"; did you mean "stats"? (known are stats, a); a dot stands between',
        ),
        ("  a: {use: moments, of: a.mean, over: step}\n", "a.of: takes its own results (a of a); break the circle"),
        (
            "  a: {use: moments, of: b.mean, over: step}\n  b: {use: moments, of: a.mean, over: step}\n",
            "a.of: takes its own results (a of b of a); break the circle",
        ),
        (
            "  a: {use: covariance, of: [u, stats.mean], over: step}\n",
            "a.of: takes variables and results of operators at",
        ),
        (
            "  b: {use: moments, of: u, over: step}\n  a: {use: covariance, of: [b.mean, stats.mean], over: step}\n",
            "a.of: takes results of b and stats, but can take those of one operator only",
        ),
        (
            f'  f: {{use: "{FUNCTION}", of: u}}\n  a: {{use: moments, of: f.it, over: step}}\n',
            'a.of: what the function "f" yields is known only when it has run; say it there before, as in',
        ),
        (
            f'  f: {{use: "{FUNCTION}", of: u, yields: {{it: {{dims: [x]}}}}}}\n',
            "f.yields.it: dims names 1 dimensions and shape has 0 lengths",
        ),
        (f'  a: {{use: "{FUNCTION}", of: stats.mean}}\n', "a.of: is a function, which is given variables"),
        (f'  a: {{use: "{FUNCTION}", of: u, over: step}}\n', "a: over: ['step'] has no meaning for a function"),
        (f'  a: {{use: "{FUNCTION}", of: u, select: {{x: 1}}}}\n', "a.select.x: expected indices such as"),
        ('  a: {use: "tests.config.folds:NoOperator", of: u}\n', "a.use: tests.config.folds:NoOperator is no operator"),
        ("  a: {use: moments, of: u, over: step, window: 10, every: 20}\n", "a: every: 20 is more than window: 10"),
        ("  a: {use: moments, of: u, over: step, every: 20}\n", "a: every: 20 has no meaning with window: run"),
        (
            "  a: {use: moments, of: u, over: step, window: 1 time, every: 2}\n",
            "a: window: 1 time and every: 2 must both",
        ),
        ("  a: {use: moments, of: u, over: step, window: 0 time}\n", "a.window: expected an integer of at least 1,"),
        ("  a: {use: moments, of: u, over: step, window: 0.5 s}\n", "a.window: expected an integer of at least 1,"),
        (
            "  a: {use: moments, of: u, over: step, window: 9, every: run}\n",
            "a.every: expected an integer of at least 1 or",
        ),
        (
            "  a: {use: moments, of: u, over: step, window: 9999, every: 7}\n",
            "a: window: 9999 and every: 7 need 9999 states",
        ),
        ("  a: {use: moments, of: u, over: space, every: 7}\n", "a: every: 7 has no meaning with over: space"),
    ],
)
def test_a_mistake_is_one_line_with_place_and_cure(tmp_path: Path, entries: str, text: str) -> None:
    found = mistakes(tmp_path, HEAD + STATS + entries)
    assert any(f": operators.{text}" in line for line in found), found
    assert all(line.startswith("melt.yaml:") for line in found)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (
            "{use: moments, of: stats.maen, over: step}",
            'a.of: "stats" yields no "maen"; did you mean "mean"? (it yields count,',
        ),
        (
            "{use: covariance, of: [modes.projection, modes.variance], over: step}",
            "a.of: takes results of single steps and",
        ),
        (
            "{use: covariance, of: [modes.modes, modes.variance], over: step}",
            "a.of: takes results of single steps and of",
        ),
        ("{use: spectrum, of: stats.mean, over: space, along: z}", "a: 'stats.mean' has no dimension 'z', only y, x;"),
        (f'{{use: "{FUNCTION}", of: u, select: {{z: "0:1"}}}}', 'a: select: z: the dims of "u" are y, x'),
        (f'{{use: "{FUNCTION}", of: w}}', 'a.of: no rank publishes a variable "w" (published are u)'),
    ],
)
def test_what_does_not_fit_the_variables_is_told_with_its_line(tmp_path: Path, entry: str, text: str) -> None:
    modes = "  modes: {use: pca, of: u, window: 10}\n"
    graph = Pipeline(load(tmp_path, HEAD + STATS + modes + f"  a: {entry}\n"))
    with pytest.raises(ConfigError) as caught:
        graph.describe({"u": U})
    assert f"melt.yaml:6: operators.{text}" in str(caught.value)


def test_what_a_function_is_said_to_yield_is_typed(tmp_path: Path) -> None:
    entries = (
        f'  f: {{use: "{FUNCTION}", of: u, yields: {{it: {{units: m}}, row: {{dims: [x], shape: [6]}}}}}}\n'
        "  a: {use: moments, of: f.row, over: step, window: 2}\n"
        "  b: {use: moments, of: a.mean, over: space}\n"
        "  c: {use: covariance, of: [f.it, f.row], over: step}\n"
    )
    graph = Pipeline(load(tmp_path, HEAD + STATS + entries))
    with pytest.raises(ConfigError, match=r"melt.yaml:8: operators.c: 'f.it' \(\) and 'f.row' \(6,\) cannot be paired"):
        graph.describe({"u": U})
    described = Pipeline(load(tmp_path, HEAD + STATS + entries[: entries.index("  c:")])).describe({"u": U})
    assert (described["f"]["it"].units, described["f"]["row"].shape) == ("m", (6,))
    assert (described["a"]["mean"].dims, described["b"]["mean"].dims) == (("x",), ())


def test_who_gives_comes_before_who_takes(tmp_path: Path) -> None:
    entries = "  c: {use: moments, of: b.mean, over: step}\n  b: {use: moments, of: stats.mean, over: step}\n"
    graph = Pipeline(load(tmp_path, HEAD + entries + STATS))
    assert list(graph.folded) == ["stats"]
    assert list(graph.chained.items()) == [("b", "stats"), ("c", "b")]
    assert graph.takers("b") == ["c"]
    assert [need.name for need in graph.needs] == ["u"]
    assert graph.describe({"u": U})["c"]["mean"].units == "K"
