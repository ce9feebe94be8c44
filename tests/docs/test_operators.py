# SPDX-License-Identifier: Apache-2.0
"""The page of operators has each of them, with a picture, an entry that is right, and a configuration that runs it."""

import re

import pytest
import yaml

from insitu import config
from insitu.registry import OPERATORS, load
from tests.docs.test_tutorial import DOCS

SECTION = re.compile(
    r"^### (\w+)\n\n!\[\1\]\((pictures/\1\.png)\)\n\n(.*?)```yaml\nmine: (.*?)\n```", re.MULTILINE | re.DOTALL
)
SECTIONS = {name: found for name, *found in SECTION.findall((DOCS / "operators.md").read_text())}


def test_every_operator_has_a_section() -> None:
    assert set(SECTIONS) == set(OPERATORS)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_is_right(name: str) -> None:
    picture, text, entry = SECTIONS[name]
    assert (DOCS / picture).stat().st_size < 60_000
    keys = yaml.safe_load(entry)
    assert load(keys.pop("use"))(**keys)
    (where,) = re.findall(r"Runs\s+in\s+`(.*?)`", text)
    entries = config.load(DOCS.parent / where).resolved()["operators"].values()
    assert name in {each["use"] for each in entries}
