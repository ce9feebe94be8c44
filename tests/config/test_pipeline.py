# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from insitu.errors import ConfigError
from insitu.model import Variable
from insitu.pipeline import Pipeline
from insitu.wire.blocks import Range
from insitu.wire.messages import Need
from tests.config.yaml_files import GOOD, load

V = Variable("v", np.dtype("f8"), None, ("particle",))
POSITION = Variable("position", np.dtype("f8"), None, ("particle", "axis"), row=(3,))
WAVE = Variable("wave", np.dtype("c16"), (8,), ("x",))

PROFILE = '  density: {use: "tests.config.folds:Count", of: v, over: [step, space], along: position}\n'
COMPLEX = '  waves: {use: "tests.config.folds:Count", of: wave, over: step}\n'


def test_results_are_described_from_what_is_published(tmp_path: Path) -> None:
    pipeline = Pipeline(load(tmp_path, GOOD + PROFILE))
    described = pipeline.describe({"position": POSITION, "v": V, "wave": WAVE})
    assert described == {"speed": {"count": V.renamed("count")}, "density": {"count": V.renamed("count")}}


def test_all_that_does_not_fit_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    pipeline = Pipeline(load(tmp_path, GOOD + PROFILE + COMPLEX))
    with pytest.raises(ConfigError) as caught:
        pipeline.describe({"vv": V.renamed("vv"), "wave": WAVE})
    missing = 'no rank publishes a variable "v"; did you mean "vv"? (published are vv, wave)'
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == [
        f"melt.yaml:4: operators.speed.of: {missing}",
        f"melt.yaml:5: operators.density.of: {missing}",
        'melt.yaml:5: operators.density.along: no rank publishes a variable "position" (published are vv, wave)',
        "melt.yaml:6: operators.waves: 'wave' is complex",
    ]


def test_a_parameter_that_is_not_declared_is_told_with_its_line_and_has_no_selection(tmp_path: Path) -> None:
    entry = '  feeds: {use: "tests.config.folds:Count", of: parameters.fed, over: step}\n'
    text = GOOD + entry + 'variables:\n  "*": {select: {x: "::4", step: "::2"}, dtype: float32}\n'
    pipeline = Pipeline(load(tmp_path, text))
    assert pipeline.needs[-1] == Need("parameters.fed", (), "", "none", 0.0, Range("step", None, None, 2))
    with pytest.raises(ConfigError) as caught:
        pipeline.describe({"v": V, "parameters.feed": Variable("parameters.feed", np.dtype("f8"), (), ())})
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines()[-1] == (
        'melt.yaml:5: operators.feeds.of: no rank publishes a variable "parameters.fed"; did you mean '
        '"parameters.feed"? (published are v, parameters.feed); a parameter is a number, a truth or an array, declared '
        "before the first step"
    )
    with pytest.raises(ConfigError, match=r'operators\.feeds: "parameters\.a\.b": parameters is followed by the name'):
        load(tmp_path, text.replace(".fed", ".a.b"))


def test_a_simulation_that_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'no rank publishes a variable "v" \(published are none\)'):
        Pipeline(load(tmp_path, GOOD)).describe({})


@pytest.mark.parametrize(
    ("outputs", "stored"),
    [
        ("", ("speed", "density")),
        ("outputs: [{of: '*'}]", ("speed", "density")),
        ("outputs: [{of: density}, {of: [density, speed]}]", ("speed", "density")),
        ("outputs: [{of: density}]", ("density",)),
        ("outputs: []", ()),
        ("outputs: [{to: record, of: v}]", ("speed", "density")),
        ("outputs: [{to: record}, {of: density}]", ("density",)),
    ],
)
def test_each_result_is_stored_once_if_an_output_names_it(tmp_path: Path, outputs: str, stored: tuple[str]) -> None:
    assert Pipeline(load(tmp_path, GOOD + PROFILE + outputs)).stored == stored


def test_operators_see_what_is_selected_and_misfits_have_their_line(tmp_path: Path) -> None:
    entry = '  mean: {use: "tests.config.folds:Count", of: u, over: step}\n'
    text = GOOD + entry + 'variables:\n  "*": {select: {x: "::4"}}\n  v: {select: {}}\n'
    field = Variable("u", np.dtype("f8"), (6, 8), ("y", "x"))
    pipeline = Pipeline(load(tmp_path, text))
    assert pipeline.needs == (Need("v", (), "", "none", 0.0), Need("u", (Range("x", None, None, 4),), "", "none", 0.0))
    assert pipeline.describe({"v": V, "u": field})["mean"]["count"].shape == (6, 2)
    with pytest.raises(ConfigError) as caught:
        pipeline.describe({"v": V, "u": replace(field, dims=("y", "z"))})
    assert str(caught.value).replace(f"{tmp_path}/", "") == (
        'melt.yaml:7: variables.*.select.x: the dims of "u" are y, z; where "*" does not fit, give "u" a select of its '
        "own, be it {}"
    )
    own = Pipeline(load(tmp_path, GOOD + 'variables:\n  v:\n    select: {particle: "1:"}\n'))
    with pytest.raises(ConfigError, match=r'melt.yaml:7: variables.v.select.particle: "v" is joined along particle'):
        own.describe({"v": V})


def test_keys_of_one_variable_override_those_of_all(tmp_path: Path) -> None:
    text = GOOD + 'variables: {"*": {select: {x: "1:"}, buffer: 1 MiB}, v: {select: {y: "2:"}}}\n'
    config = load(tmp_path, text)
    assert config.rules("v").select == {"y": "2:"}
    assert config.rules("other").select == {"x": "1:"}
    assert config.rules("v").buffer == config.buffering.buffer == 2**20
    again = load(tmp_path, config.resolved_yaml())
    assert again.rules("v") == config.rules("v")
    assert again.resolved() == config.resolved()


def test_a_variable_to_be_recorded_must_be_published(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD + "outputs: [{to: record, of: [v, w]}]\n")
    assert config.recorded == {"v", "w"}
    assert [need.name for need in Pipeline(config).needs] == ["v", "w"]
    everything = load(tmp_path, GOOD + "outputs: [{to: record}]\n")
    assert Pipeline(everything).needs[1:] == (Need("*", (), "", "none", 0.0),)
    with pytest.raises(ConfigError, match=r'outputs.0.of: no rank publishes a variable "w"'):
        Pipeline(config).describe({"v": Variable("v", np.dtype("f8"), (4,), ("x",))})
