# SPDX-License-Identifier: Apache-2.0
"""The page about the states of a link is what the table says."""

from tests.wire.figure import PAGE, draw


def test_the_page_is_drawn_from_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == draw(), "draw it anew: python -m tests.wire.figure"
