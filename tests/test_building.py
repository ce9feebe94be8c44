# SPDX-License-Identifier: Apache-2.0
"""A run put together in Python is the one that its YAML says."""

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import insitu
from analytics.histogram import Histogram
from analytics.moments import Moments
from analytics.pca import PCA
from insitu import config
from insitu.errors import ConfigError, RunError
from tests.config.folds import Count
from tests.config.yaml_files import GOOD
from tests.end_to_end.functions import picture

REFERENCE = Path(__file__).parents[1] / "configs" / "reference.yaml"

windows = st.one_of(
    st.just({}),
    st.just({"window": "run"}),
    st.integers(1, 500).map(lambda n: {"window": n}),
    st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda n: {"window": n[0] * n[1], "every": n[0]}),
    st.sampled_from([{"window": "0.5 time"}, {"window": "0.5 time", "every": "0.2 time"}]),
)
operators = st.one_of(
    st.builds(lambda keys, n: Moments(of="u", over="step", orders=n, **keys), windows, st.integers(1, 4)),
    st.builds(
        lambda keys, n: Histogram(of="v", over=["step", "space"], bins=n, range=(0, 1), **keys),
        windows,
        st.integers(1, 99),
    ),
    st.builds(lambda keys: PCA(of=["u", "v"], scale=(1.0, 0.1), **keys), windows),
    st.just(Moments(of="first.mean", over="space")),
)
memory = st.sampled_from([{}, {"staging": {"nodes": 3, "memory": "1 GiB"}}, {"network": {"security": "curve"}}])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(operators, max_size=4), memory, st.booleans())
def test_its_yaml_loads_to_an_equal_configuration(
    tmp_path: Path, several: list[Any], sections: dict[str, Any], some: bool
) -> None:
    pipeline = insitu.Pipeline("heat", simulation={"command": "python 'a b.py' 007", "ranks": 2}, **sections)
    pipeline = pipeline.add("first", Moments(of="u", over="step", window=10)).variable("u", dtype="float32")
    for number, operator in enumerate(several):
        pipeline = pipeline.add(f"op{number}", operator)
    if some:
        pipeline = pipeline.output(["first"]).output("*", to="record")
    path = tmp_path / "heat.yaml"
    path.write_text(pipeline.to_yaml())
    loaded = config.load(path)
    assert loaded == pipeline.config
    assert loaded.operators["first"] == Moments(of="u", over="step", window=10)
    assert config.config_hash(loaded) == config.config_hash(pipeline.config)
    path.write_text(loaded.resolved_yaml())
    assert config.load(path) == loaded


def test_configurations_that_differ_are_not_equal() -> None:
    pipeline = insitu.Pipeline().add("stats", Moments(of="u", over="step"))
    assert pipeline.config == pipeline.output().config
    assert pipeline.config != pipeline.output("stats").config
    assert pipeline.config != insitu.Pipeline("other").add("stats", Moments(of="u", over="step")).config


def test_operators_of_the_reference_can_all_be_added(tmp_path: Path) -> None:
    loaded = config.load(REFERENCE)
    pipeline = insitu.Pipeline("reference")
    for name, operator in loaded.operators.items():
        pipeline = pipeline.add(name, operator)
    assert pipeline.config.operators == loaded.operators


def test_functions_are_added_by_the_keys_of_their_entry(tmp_path: Path) -> None:
    pipeline = insitu.Pipeline().add("plot", picture, of="u", window=10, select={"x": "::2"})
    assert "use: tests.end_to_end.functions:picture" in pipeline.to_yaml()
    (tmp_path / "plot.yaml").write_text(pipeline.to_yaml())
    assert config.load(tmp_path / "plot.yaml") == pipeline.config


def test_a_method_leaves_the_pipeline_as_it_is() -> None:
    first = insitu.Pipeline().add("a", Count(of="u", over="step"))
    second = first.add("b", Count(of="v", over="step"))
    assert list(first.config.operators) == ["a"]
    assert list(second.config.operators) == ["a", "b"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: p.config, "operators: is missing; expected a mapping that is not empty"),
        (
            lambda p: p.add("a", Count(of="u", over="step")).output("b").config,
            'outputs.0.of: no operator is called "b"',
        ),
        (lambda p: p.add("a b", Count(of="u", over="step")).to_yaml(), "operators.a b: expected a name of letters"),
        (lambda p: p.add("a", Count(of="u", over="step")).add("a", Count(of="v", over="step")), "a is there already"),
        (lambda p: p.add("a", lambda window: {}, of="u"), "the module tests.test_building has no <lambda>"),
        (lambda p: p.add("a", Count(of="u", over="step"), window=3), "an operator has its keys already, got window"),
        (
            lambda p: p.add("a", picture, of="u", windwo=3).config,
            'operators.a.windwo: unknown key; did you mean "window"',
        ),
        (lambda p: p.add("a", picture, of="u", over="step").config, "over: ['step'] has no meaning for a function"),
    ],
)
def test_mistakes_are_those_of_the_yaml(make: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(insitu.Pipeline())
    assert text in str(caught.value)


def test_a_run_belongs_to_the_main_thread(tmp_path: Path) -> None:
    said: list[str] = []

    def start() -> None:
        try:
            insitu.Pipeline(directory=str(tmp_path)).add("a", Count(of="u", over="step")).run()
        except RunError as error:
            said.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert said == ["A run takes Ctrl-C, which only the main thread can; call run() there."]


def test_a_file_and_python_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "melt.yaml").write_text(GOOD)
    loaded = config.load(tmp_path / "melt.yaml")
    assert config.build(loaded.resolved()) == loaded
