# SPDX-License-Identifier: Apache-2.0
"""What a page says becomes what a parameter takes, or a sentence."""

from typing import Any

import pytest

from insitu.dashboard.helm import WAITING, Helm, parsed
from insitu.steering.parameters import ParameterSpec
from insitu.wire.contact import Contact

CONTACT = Contact("melt", "tcp://127.0.0.1:1", 1, "n17", "/nowhere")


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [
        (0.5, "1e-3", 1e-3),
        (3, "4", 4),
        (True, "false", False),
        ("cg", "gmres", "gmres"),
        ([1.0, 2.0], "[3, 4]", [3, 4]),
    ],
)
def test_a_text_becomes_what_its_parameter_takes(default: Any, text: str, value: Any) -> None:
    assert parsed(ParameterSpec.of("p", default), "p", text) == value


@pytest.mark.parametrize(
    ("default", "text", "why"),
    [
        (0.5, "much", "'p' takes a number, and got 'much'"),
        (3, "4.5", "'p' takes a whole number"),
        (True, "1", "'p' takes true or false"),
        ([1.0, 2.0], "3, 4", "'p' takes numbers in brackets"),
        ([1.0, 2.0], "[3]", r"p has shape \(2,\)"),
        (0.5, "nan", "not finite"),
        (0.5, {}, "'p' takes a number"),
    ],
)
def test_what_does_not_fit_is_said(default: Any, text: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parsed(ParameterSpec.of("p", default), "p", text)


def test_what_is_no_action_is_said_and_not_asked_for() -> None:
    helm = Helm(CONTACT, lambda: None)
    helm.ask("explode", {})
    assert helm.trouble == "'explode' is no action of this run."
    helm.ask("set", {"feed": "1"})
    assert helm.trouble == "'feed' is nothing that this run lets be set."


def test_what_waits_is_bounded() -> None:
    helm = Helm(CONTACT, lambda: None)
    for _ in range(WAITING):
        helm.ask("pause", {})
        assert helm.trouble == ""
    helm.ask("pause", {})
    assert "wait for their receipts" in helm.trouble
    helm.close()
