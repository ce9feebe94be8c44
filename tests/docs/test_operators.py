# SPDX-License-Identifier: Apache-2.0
"""The page of operators has each of them, with a picture, an entry that is right, and a configuration that runs it."""

import re

import numpy as np
import pytest
import yaml

from insitu import config
from insitu.model import Variable
from insitu.pipeline import Pipeline
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


@pytest.mark.parametrize("name", ["gray_scott", "gray_scott_graph"])
def test_what_the_demo_puts_is_what_its_configurations_take(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS.parent / "demos")
    pipeline = Pipeline(config.load(DOCS.parent / "configs" / f"{name}.yaml"))
    command = pipeline.config.simulation.command
    size = int(command[command.index("--size") + 1])
    put = {each: Variable(each, np.dtype("f8"), (size, size), ("y", "x"), units="1") for each in "uv"}
    described = pipeline.describe(put)
    assert set(described) >= set(pipeline.operators)
