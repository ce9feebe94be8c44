# SPDX-License-Identifier: Apache-2.0
"""What pages show of runs that have little to show, without a browser."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insitu.dashboard.access import Role
from insitu.dashboard.page import encoded, page, signature
from insitu.dashboard.pictures import Picture, Wanted
from insitu.dashboard.sources import Finished, Source, tell_apart
from insitu.dashboard.views import Image, Update, dask, fields
from insitu.dashboard.views.registry import VIEWS
from insitu.errors import ConfigError
from insitu.model import Variable
from tests.dashboard.snapshots import snapshot


class Going(Source):
    """A run that goes on, of which a snapshot and one picture are known."""

    def __init__(self, folder: Path, picture: Picture | None = None, **variable: Any) -> None:
        super().__init__(folder)
        told = {"name": "u", "shape": [4, 6], "dims": ["y", "x"], "row": [], "needed": True, **variable}
        self.snapshot = snapshot([0.0], [0.0], variables=[told])
        self._picture = picture
        self.looks.want = lambda wanted, now: self._picture  # type: ignore[method-assign]

    @property
    def live(self) -> bool:
        return True


@pytest.fixture
def ended(tmp_path: Path) -> Finished:
    (tmp_path / "config.yaml").write_text("run: melt\n")
    return Finished(tmp_path)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_run_that_left_nothing_has_every_view(view: Any, ended: Finished) -> None:
    ended.refresh(watched=True, reads=True)
    assert "no snapshot.json" in ended.warning
    parts = view.parts([ended])
    said = json.loads(encoded(view.update([ended], {}), [ended], signature(parts)))
    places = {part.id for part in parts}
    assert {
        *said["texts"],
        *said["cards"],
        *said["tables"],
        *said["drawings"],
        *said["links"],
        *said["hidden"],
    } <= places
    text = page(view, list(VIEWS.values()), [ended], Role.OBSERVER)
    assert all(f"part-{part.id}" in text for part in parts)


def test_a_run_without_operators_and_variables_says_so(tmp_path: Path) -> None:
    run = Going(tmp_path)
    run.snapshot = snapshot([0.0], [0.0])
    said = {name: view.update([run], {}) for name, view in VIEWS.items()}
    assert said["fields"].texts["say-0"] == "No variable was put yet."
    assert said["series"].texts["none"].startswith("There are no series yet.")
    assert said["training"].texts["none"].startswith("Nothing is learnt in this run")
    assert said["run"].tables["operators-0"].rows == []


def test_what_is_left_of_a_run_that_ended_is_said(ended: Finished) -> None:
    said = VIEWS["fields"].update([ended], {}).texts
    assert said["say-0"] == "The run has ended: of its variables only what operators made of them is left."
    assert said["about-0"] == "No result of this run is a field; see Series."


def test_a_run_of_one_interval_has_no_empty_strip(tmp_path: Path) -> None:
    run = Going(tmp_path)
    run.snapshot = snapshot([0.0, 1.0], [0.0, 0.0])
    sources = VIEWS["run"].update([run], {}).sources
    assert len(sources["time-0"]["at_s"]) == len(sources["rate-0"]["at_s"]) == 2


def test_pages_of_a_dask_cluster_are_linked_and_nothing_else_is(tmp_path: Path) -> None:
    run = Going(tmp_path)
    for pages, linked in (("http://n17:8787/status", True), ("javascript:alert(1)", False), ("", False)):
        run.snapshot = snapshot([0.0], [0.0], dask={"scheduler": "tcp://n17:8786", "pages": pages})
        update = dask.update([run], {})
        assert dict(update.links["pages-0"]).get("tasks") == ("http://n17:8787/tasks" if linked else None)
        assert ("pages-0" in update.hidden) == (not linked)
    assert dict(update.cards["scheduler-0"])["address"] == "tcp://n17:8786"


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [Source(tmp_path / name) for name in ("a", "b", "c")]
    for run, name in zip(runs, ("melt", "melt", "other"), strict=True):
        run.snapshot = {"run": name}
    tell_apart(runs)
    assert [run.name for run in runs] == [str(tmp_path / "a"), str(tmp_path / "b"), "other"]


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run in"):
        Finished(tmp_path)


def picture(values: Any, variable: Variable | None = None, why: str = "") -> Picture:
    variable = variable or Variable("u", np.dtype("f8"), (4, 6), ("y", "x"), units="K")
    return Picture(variable, 70, 0.7, (1,) * variable.ndim, np.asarray(values, np.float32), why)


@pytest.mark.parametrize(
    ("shown", "variable", "says"),
    [
        (None, {}, "Waiting for a step that has it."),
        (None, {"needed": False}, "'u' does not leave its rank, because no staging node folds it"),
        (picture([], why="'u' has no dim 't'"), {}, "There is no picture: 'u' has no dim 't'."),
    ],
)
def test_why_there_is_no_picture_is_said(tmp_path: Path, shown: Any, variable: dict[str, Any], says: str) -> None:
    update = fields.update([Going(tmp_path, shown, **variable)], {})
    assert says in update.texts["say-0"]
    assert update.images == {}
    assert {"field-0", "line-0"} <= set(update.hidden)


def test_a_field_without_any_finite_value_is_drawn_all_the_same(tmp_path: Path) -> None:
    update = fields.update([Going(tmp_path, picture(np.full((4, 6), np.nan)))], {})
    image = update.images["field-0"]
    assert image.low < image.high
    said = json.loads(encoded(update, [], ""))
    assert said["images"]["field-0"]["shape"] == [4, 6]


def test_of_more_dimensions_the_first_are_sliced_in_their_middle(tmp_path: Path) -> None:
    asked: list[Wanted] = []
    run = Going(tmp_path, shape=[9, 4, 6], dims=["z", "y", "x"])
    run.looks.want = lambda wanted, now: asked.append(wanted)  # type: ignore[method-assign, func-returns-value]
    for choice in ({}, {"at z": "2"}, {"at z": "99"}, {"at z": "junk"}):
        fields.update([run], choice)
    assert [dict(wanted.at)["z"] for wanted in asked] == [4, 2, 8, 4]


@pytest.mark.parametrize(
    "choice", [{"variable": "no such"}, {"result": "x"}, {"colours": "jet"}, {"low": "x"}, {"row": "-1"}]
)
def test_a_choice_that_is_none_is_no_error(tmp_path: Path, choice: dict[str, str]) -> None:
    update = fields.update([Going(tmp_path, picture(np.eye(4, 6)))], choice)
    assert update.images["field-0"].palette == "viridis"


def test_particles_without_a_finite_row_are_said(tmp_path: Path) -> None:
    atoms = Variable("u", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
    for values in (np.empty((0, 3)), np.full((5, 3), np.nan)):
        update = fields.update([Going(tmp_path, picture(values, atoms), shape=None)], {})
        assert "No particle has finite values" in update.texts["say-0"]


def test_numbers_that_json_has_none_for_become_null() -> None:
    update = Update(sources={"line": {"y": [1.0, float("nan"), float("inf")]}})
    assert json.loads(encoded(update, [], ""))["sources"] == {"line": {"y": [1.0, None, None]}}


def test_values_beyond_a_fixed_range_take_its_ends() -> None:
    image = Image(np.array([[-9.0, 0.5, 9.0, np.nan]], np.float32), (0, 0, 4, 1), ("x", "y"), 0.0, 1.0, "viridis")
    packed = json.loads(encoded(Update(images={"u": image}), [], ""))["images"]["u"]
    assert list(zlib.decompress(base64.b64decode(packed["data"]))) == [0, 127, 254, 255]
