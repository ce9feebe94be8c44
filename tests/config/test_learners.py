# SPDX-License-Identifier: Apache-2.0
"""Mistakes in the entries of learners, each found before the run, with its line and its cure."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from insitu import config
from insitu.errors import ConfigError

ENTRY = """\
run: r
simulation: {command: [x]}
operators:
  net:
    use: train
    inputs: [p, time]
    targets: u
    model: {kind: mlp, hidden: [8]}
"""


SPILL = "    targets: u\n    buffer: {spill: {capacity: %s}}\n"


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return [f"{problem.line}: {problem.path}: {problem.message}" for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[p, time]", '["p[1]"]', '"p[1]" is no variable, u[-1] (a step before), time, or @x'),
        ("targets: u", "targets: time", "names no variable, and nothing is learned"),
        ("mlp", "mpl", 'no model is called "mpl"; did you mean "mlp"?'),
        ("    targets: u\n", "    targets: u\n    optimiser: sgd\n", 'unknown key; did you mean "optimizer"?'),
        ("    targets: u\n", "    targets: u\n    buffer: {capacity: lots}\n", "expected a size such as"),
        ("    targets: u\n", SPILL % "1 GiB, directory: /nowhere", "spill: /nowhere is no folder that can be written"),
        ("    targets: u\n", "    targets: u\n    device: cuda:7\n", "device: cuda:7 asks for a GPU"),
        ("    targets: u\n", "    targets: u\n    parallel: {trainers: 0}\n", "expected an integer of at least 1"),
        (
            "    targets: u\n",
            "    targets: u\n    parallel: {trainers: 2, compression: {top_k: 0.01}}\n",
            "compression needs optimizer: sgd, got adam",
        ),
        (
            "    targets: u\n",
            "    targets: u\n    parallel: {trainers: 2, largest_batch: 8}\n",
            "largest_batch: 8 is below batch: 64, where it begins",
        ),
        ("    targets: u\n", "    targets: u\n    parallel: {async: true}\n", "has nobody to wait for"),
        ("    targets: u\n", "    targets: u\n    parallel: {trainers: 2, staleness: 2}\n", "no meaning without async"),
        (
            "    targets: u\n",
            "    targets: u\n    parallel: {trainers: 2, async: true, largest_batch: 128}\n",
            "async goes with neither compression nor largest_batch nor amp",
        ),
        (
            "    targets: u\n",
            "    targets: u\n    parallel: {trainers: 2, async: true}\n    normalise: {freeze: null}\n",
            "async needs normalise: freeze",
        ),
        ("    targets: u\n", "    targets: u\n    threads: 0\n", "expected an integer of at least 1"),
    ],
)
def test_a_mistake_names_its_place_and_cure(tmp_path: Path, before: str, after: str, message: str) -> None:
    found = problems(tmp_path, ENTRY.replace(before, after))
    assert any(message in problem for problem in found), found
    assert all("operators.net" in problem for problem in found)


def test_predictions_need_a_model_of_this_run_or_the_folder_of_one(tmp_path: Path) -> None:
    predict = "  trust: {use: predict, model: %s, inputs: [p, time], targets: u}\n"
    [problem] = problems(tmp_path, ENTRY + predict % "nett")
    assert 'operators.trust.model: no learner is called "nett"; did you mean "net"?' in problem
    [problem] = problems(tmp_path, ENTRY + predict % "runs/none/models/net/1")
    assert "is no folder of a version" in problem


def test_a_model_that_cannot_say_how_sure_it_is_is_found_before_the_run(tmp_path: Path) -> None:
    predict = "  trust: {use: predict, model: net, inputs: [p, time], targets: u, uncertainty: %s}\n"
    [problem] = problems(tmp_path, ENTRY + predict % "ensemble")
    assert "operators.trust: uncertainty: ensemble: 'net' is one network; give it ensemble: 4" in problem
    [problem] = problems(tmp_path, ENTRY + predict % "{kind: dropout, samples: 8}")
    assert "operators.trust: uncertainty: dropout: 'net' is trained without; give its model dropout: 0.1" in problem
    [problem] = problems(tmp_path, ENTRY + predict % "{kind: ensemble, samples: 8}")
    assert "samples has no meaning for an ensemble" in problem


def test_proposals_need_to_know_what_the_parameters_were(tmp_path: Path) -> None:
    names = {"inputs": "[p, time]", "more": "[p, parameters.feed]"}
    text = (
        ENTRY
        + "  trust: {use: predict, model: net, inputs: %s, targets: u}\n"
        + ("steering: {controllers: {next: {use: propose, of: trust, sets: {feed: [0, 1]}, every: 50}}}\n")
    )
    [problem] = problems(tmp_path, text % names["inputs"])
    assert 'steering.controllers.next: "trust" yields no "parameter_feed"' in problem
    path = tmp_path / "r.yaml"
    path.write_text(text % names["more"])
    assert config.load(path).steering.controllers.keys() == {"next"}


def test_a_missing_pytorch_is_one_sentence_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec

    def without(name: str, *arguments: Any) -> Any:
        return None if name == "torch" else there(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert problems(tmp_path, ENTRY) == [
        '4: operators.net: train needs torch, which is not installed; pip install "insitu[train]"'
    ]


def test_what_is_learned_is_no_input_of_a_fold(tmp_path: Path) -> None:
    fold = "  m: {use: moments, of: net.loss, over: step, window: 2}\n"
    [problem] = problems(tmp_path, ENTRY + fold)
    assert 'what "net" learns cannot be folded' in problem


def test_rules_may_read_what_is_learned_and_nothing_else_of_it(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(ENTRY + 'steering: [{when: "net.loss > 1", do: stop}]\n')
    assert config.load(path).learners.keys() == {"net"}
    [problem] = problems(tmp_path, ENTRY + 'steering: [{when: "net.los > 1", do: stop}]\n')
    assert "los" in problem
