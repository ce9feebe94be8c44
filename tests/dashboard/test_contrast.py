# SPDX-License-Identifier: Apache-2.0
"""Text can be read on what it stands on, light and dark: at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""

import re
from pathlib import Path

import pytest

import insitu.dashboard

CSS = Path(insitu.dashboard.__file__).parent / "static" / "page.css"
PAIRS = [
    *(("ink", on) for on in ("page", "part")),
    *(("soft", on) for on in ("page", "part")),
    *(("accent", on) for on in ("page", "part")),
    ("part", "accent"),
    ("bad", "bad-page"),
    ("warn", "warn-page"),
    ("good", "good-page"),
]


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_it_is_on(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", CSS.read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", blocks[scheme]))
    for one, other in PAIRS:
        high, low = sorted((luminance(colours[one]), luminance(colours[other])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (one, other)


def test_focus_is_seen_wherever_it_is() -> None:
    css = CSS.read_text()
    assert re.search(r"^:focus-visible \{ outline: [2-9]px solid var\(--accent\);", css, re.MULTILINE)
    assert not re.search(r"outline(-width|-style)?: *(0|none)", css)
