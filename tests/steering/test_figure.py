# SPDX-License-Identifier: Apache-2.0
"""The figure in the page about steering is what the table says."""

from tests.steering.figure import PAGE, draw


def test_the_figure_is_drawn_from_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == draw(), "draw it anew: python -m tests.steering.figure"
