# SPDX-License-Identifier: Apache-2.0
"""What a run will yield and hold is known before it, and is what the staging nodes then hold."""

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from insitu import forecast as module
from insitu.config import load
from insitu.errors import ConfigError
from insitu.forecast import forecast
from insitu.model import Block, Step, Variable
from insitu.pipeline import Pipeline
from insitu.staging.assembler import ReadyStep
from insitu.staging.folds import Folds

TEXT = """
run: melt
simulation: {command: [python, melt.py], ranks: 2}
staging: {nodes: 2}
variables:
  u: {expect: {shape: [96, 64], dims: [y, x], units: K}}
  x: {expect: {shape: [null, 3], dims: [atom, axis]}}
operators:
  stats: {use: moments, of: u, over: step, window: 100}
  slid: {use: moments, of: u, over: step, window: 20, every: 5}
  modes: {use: pca, of: u, components: 3, window: 50}
  behind: {use: moments, of: modes.projection, over: step, window: 10}
  fields: {use: moments, of: stats.mean, over: [step, space]}
  g: {use: rdf, of: x, over: space, box: [10, 10, 10], cutoff: 2, bins: 50}
  later: {use: moments, of: w, over: step}
"""


def pipeline(folder: Path, text: str = TEXT) -> Pipeline:
    (folder / "melt.yaml").write_text(dedent(text))
    return Pipeline(load(folder / "melt.yaml"))


def held(operator: str, graph: Pipeline, share: int, steps: int) -> int:
    """The most bytes that a staging node holds of `share` rows of u."""
    u = Variable("u", np.dtype("f8"), (96, 64), ("y", "x"))
    folds, rng, peak = Folds({operator: graph.operators[operator]}, 2**30), np.random.default_rng(1), 0
    for n in range(steps):
        block = Block(u, (0, 0), rng.normal(size=(share, 64)))
        folds.fold([ReadyStep(Step(n, n, float(n)), {0: {"u": block}}, {})])
        peak = max(peak, folds.nbytes)
    return peak


def test_states_are_as_large_as_foretold(tmp_path: Path) -> None:
    graph = pipeline(tmp_path)
    loads = forecast(graph).loads
    assert loads["stats"].nbytes == pytest.approx(held("stats", graph, 48, 90), rel=0.01)
    assert loads["modes"].nbytes == pytest.approx(held("modes", graph, 48, 49), rel=0.05)
    slid = held("slid", graph, 48, 60)
    assert slid <= (loads["slid"].nbytes or 0) <= 2.5 * slid


def test_large_shares_and_long_windows_are_foretold_from_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = pipeline(tmp_path, TEXT.replace("of: u, components: 3, window: 50", "of: u, components: 3, window: 400"))
    exact = forecast(graph).loads
    monkeypatch.setattr(module, "VALUES", 2**10)
    fewer = forecast(graph).loads
    for name in ("stats", "modes", "slid"):
        assert fewer[name].nbytes == pytest.approx(exact[name].nbytes, rel=0.05), name


def test_every_result_is_known_with_its_units(tmp_path: Path) -> None:
    results = forecast(pipeline(tmp_path)).results
    assert results["stats"]["variance"].units == "(K)2"
    assert (results["modes.series"]["projection"].shape, results["modes.series"]["projection"].units) == ((3,), "K")
    assert (results["behind"]["mean"].dims, results["behind"]["mean"].shape) == (("component",), (3,))
    assert results["fields"]["mean"].shape == ()
    assert "later" not in results


def test_only_large_states_take_tasks(tmp_path: Path) -> None:
    loads = forecast(pipeline(tmp_path)).loads
    assert loads["behind"].tasks == 0
    # two nodes: each finalises, cuts of both for the one bundle, which is written, and the end of it
    assert loads["stats"].tasks == 2 + 2 + 1 + 1
    assert loads["modes"].tasks == 2 + 1 + 2 + 2 + 2 + 1 + 1  # and summaries, combined, followed, and the series


def test_members_are_folded_one_by_one(tmp_path: Path) -> None:
    text = TEXT[: TEXT.index("  x: {expect")].replace("nodes: 2", "nodes: 1")
    text = text.replace("shape: [96, 64], dims: [y, x]", "shape: [80, 640], dims: [member, x]")
    text += "operators:\n  ways: {use: sobol, of: u, parameters: 2}\n"
    ways = forecast(pipeline(tmp_path, text)).loads["ways"]
    assert ways.nbytes == pytest.approx((16 * 2 + 8) * 8 * 640, rel=0.01)
    assert ways.tasks == 1 + 1 + 1 + 1  # the node finalises its cells, cuts them for the one bundle, and so on


def test_what_cannot_be_known_says_why(tmp_path: Path) -> None:
    assert "give expect.rows" in forecast(pipeline(tmp_path)).loads["g"].why
    known = forecast(pipeline(tmp_path, TEXT.replace("axis]", "axis], rows: 400"))).loads["g"]
    assert known.nbytes is not None


def test_what_does_not_fit_is_told_with_its_line(tmp_path: Path) -> None:
    text = TEXT.replace("of: u, over: step, window: 100", "of: u, over: step, along: q")
    with pytest.raises(ConfigError, match="unknown key"):
        pipeline(tmp_path, text)
    text = TEXT.replace("of: modes.projection", "of: modes.projektion")
    with pytest.raises(ConfigError) as caught:
        forecast(pipeline(tmp_path, text))
    assert str(caught.value).endswith(
        'melt.yaml:12: operators.behind.of: "modes" yields no "projektion"; did you mean "projection"? (it yields '
        "rank, variance, energy, truncation, turn, modes, mean, projection)"
    )


def test_a_variable_that_is_not_as_expected_is_a_mistake(tmp_path: Path) -> None:
    u = Variable("u", np.dtype("f4"), (96, 64), ("y", "x"), "K")
    with pytest.raises(ConfigError) as caught:
        pipeline(tmp_path).describe({"u": u}, lacking=None)
    assert str(caught.value).endswith(
        "melt.yaml:6: variables.u.expect: dtype of 'u' is dtype('float32'), expected was dtype('float64')"
    )
