# SPDX-License-Identifier: Apache-2.0
"""What a parameter may be set to, and what an action may say."""

import json

import numpy as np
import pytest

from insitu.errors import ActionError
from insitu.steering.actions import Action, Receipt, check_values
from insitu.steering.parameters import ParameterSpec

FEED = ParameterSpec.of("feed", 0.035, minimum=0.0, maximum=0.1, units="s-1")
COUNT = ParameterSpec.of("count", 3, minimum=1)
ON = ParameterSpec.of("on", False)
SOLVER = ParameterSpec.of("solver", "cg", choices=("cg", "gmres"))
INLETS = ParameterSpec.of("inlets", [1.0, 2.0], minimum=0.0)
U = ParameterSpec("u", "field", None, minimum=0.0, shape=(4, 6), dtype="<f4")
ALL = {spec.name: spec for spec in (FEED, COUNT, ON, SOLVER, INLETS, U)}


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("feed", 0, 0.0),
        ("feed", np.float32(0.0625), 0.0625),
        ("feed", np.array(0.1), 0.1),
        ("count", 4.0, 4),
        ("count", np.int8(7), 7),
        ("on", np.True_, True),
        ("solver", "gmres", "gmres"),
    ],
)
def test_a_value_is_taken_as_the_kind_has_it(name: str, given: object, taken: object) -> None:
    value = ALL[name].check(given)
    assert value == taken
    assert type(value) is type(taken)


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("feed", 0.2, "feed = 0.2 is above the maximum 0.1."),
        ("feed", -1e-9, "feed = -1e-09 is below the minimum 0.0."),
        ("feed", float("nan"), "feed = nan is not finite."),
        ("feed", "0.03", "feed = '0.03' is not a number."),
        ("feed", True, "feed = True is not a number."),
        ("count", 2.5, "count = 2.5 is not a whole number."),
        ("on", 1, "on = 1 is not true or false."),
        ("solver", "jacobi", "solver = 'jacobi' is none of its choices 'cg', 'gmres'."),
        ("inlets", [1.0], "inlets has shape (2,), the value that it is set to has (1,)."),
        ("inlets", [1.0, -2.0], "inlets = -2.0 in its smallest cell is below the minimum 0.0."),
        ("inlets", [1.0, float("inf")], "inlets is set to an array with values that are not finite."),
        ("inlets", "ab", "inlets = 'ab' is no array of float64."),
        ("u", np.zeros((6, 4)), "u has shape (4, 6), the value that it is set to has (6, 4)."),
        ("u", np.zeros((4, 6), complex), "is no array of float32."),
    ],
)
def test_a_value_that_it_may_not_have_is_named_with_what_is_wrong(name: str, given: object, why: str) -> None:
    with pytest.raises(ActionError) as error:
        ALL[name].check(given)
    assert why in str(error.value)


def test_arrays_are_copied_and_cannot_be_changed() -> None:
    given = np.zeros((4, 6))
    taken = U.check(given)
    given[:] = 1.0
    assert isinstance(taken, np.ndarray)
    assert taken.dtype == np.float32
    assert not taken.any()
    with pytest.raises(ValueError, match="read-only"):
        taken[0, 0] = 1.0


@pytest.mark.parametrize("spec", ALL.values(), ids=ALL)
def test_a_declaration_survives_json(spec: ParameterSpec) -> None:
    again = ParameterSpec.from_plain(json.loads(json.dumps(spec.to_plain())))
    assert again == spec
    assert hash(again) == hash(spec)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: ParameterSpec.of("feed", 0.2, maximum=0.1), "feed = 0.2 is above the maximum 0.1."),
        (lambda: ParameterSpec.of("feed", 0.2, minimum=2.0, maximum=0.1), "the minimum 2.0 is above the maximum 0.1"),
        (lambda: ParameterSpec.of("my feed", 0.2), "take a name of letters"),
        (lambda: ParameterSpec.of("on", True, minimum=0), "has no bounds; use choices"),
        (lambda: ParameterSpec.of("x", None), "the default None is no number"),
        (lambda: ParameterSpec.of("x", np.zeros(5000)), "declare it as a state"),
        (lambda: ParameterSpec.of("s", "cg", choices=("gmres",)), "'cg' is none of its choices"),
        (lambda: ParameterSpec.from_plain({"name": "x"}), "describes no parameter"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(make: object, why: str) -> None:
    assert callable(make)
    with pytest.raises(ActionError, match=None) as error:
        make()
    assert why in str(error.value)


FUNCTIONS = {"checkpoint": {}, "perturb": {"amplitude": ParameterSpec.of("amplitude", 0.1, minimum=0.0)}}


def test_the_values_of_an_action_are_checked_and_completed() -> None:
    values = check_values(Action("set", {"feed": 0, "count": 2.0}), ALL, FUNCTIONS)
    assert values == {"feed": 0.0, "count": 2}
    assert check_values(Action("perturb"), ALL, FUNCTIONS) == {"amplitude": 0.1}
    assert check_values(Action("trate", {"every": 5}), ALL, FUNCTIONS) == {"every": 5}
    assert check_values(Action("checkpoint"), ALL, FUNCTIONS) == {}


@pytest.mark.parametrize(
    ("action", "why"),
    [
        (Action("set"), "set sets nothing"),
        (Action("set", {"food": 1}), "'food' is no parameter of this simulation; it declares count, feed, inlets"),
        (Action("set", {"feed": 0.01, "count": 0}), "count = 0 is below the minimum 1."),
        (Action("pause", {"for": 3}), "pause: there is no argument 'for'; it takes none."),
        (Action("trate"), "'every' is missing"),
        (Action("trate", {"every": 0}), "every = 0 is below the minimum 1."),
        (
            Action("explode"),
            "'explode' is no action of this simulation, which knows set, pause, resume, checkpoint, stop",
        ),
        (Action("perturb", {"phase": 0.0}), "there is no argument 'phase'; it takes amplitude."),
    ],
)
def test_an_action_that_can_never_be_applied_says_why(action: Action, why: str) -> None:
    with pytest.raises(ActionError) as error:
        check_values(action, ALL, FUNCTIONS)
    assert why in str(error.value)


def test_a_simulation_that_has_not_said_how_it_checkpoints_does_not() -> None:
    with pytest.raises(ActionError, match="on_checkpoint"):
        check_values(Action("checkpoint"), {}, {})


def test_a_receipt_survives_json() -> None:
    action = Action("set", {"feed": 0.1, "inlets": np.array([1 / 3, 2.0])}, by="rule:a", why="x > 1", id=7)
    receipt = Receipt(action, "torn", "rank 1 is gone", 120, 12, 1.5, {"feed": 0.03}, {"feed": 0.1}, (0, 2), 0.25, 3)
    again = Receipt.from_plain(json.loads(json.dumps(receipt.to_plain())))
    assert again.to_plain() == receipt.to_plain()
    assert again.action.values["inlets"] == [1 / 3, 2.0]
    assert again.describe() == (
        "7: set feed=0.1 inlets=[0.3333333333333333, 2.0] (rule:a): torn after step 120, feed 0.03 -> 0.1: "
        "rank 1 is gone"
    )


@pytest.mark.parametrize("data", [{}, {"kind": 3}, {"kind": "set", "values": [1]}, {"kind": "set", "id": "x"}])
def test_what_is_no_action_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ActionError, match="is no action"):
        Action.from_plain(data)


def test_what_is_no_receipt_is_refused() -> None:
    with pytest.raises(ActionError, match="is no receipt"):
        Receipt.from_plain({"kind": "set", "outcome": "done"})
