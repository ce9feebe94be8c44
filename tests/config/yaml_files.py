# SPDX-License-Identifier: Apache-2.0
"""Configurations for tests, and their mistakes as lines of text."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import pytest

from insitu import config
from insitu.errors import ConfigError

GOOD = """\
run: melt
simulation: {command: [python, melt.py], ranks: 2, launcher: mpiexec}
operators:
  speed: {use: "tests.config.folds:Count", of: v, over: [step, space], window: 10}
"""


def load(folder: Path, text: str, overrides: Sequence[str] = ()) -> config.Config:
    path = folder / "melt.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return config.load(path, overrides)


def mistakes(folder: Path, text: str, overrides: Sequence[str] = ()) -> list[str]:
    """The mistakes of a configuration that has some, without the folder's name."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, overrides)
    return str(caught.value).replace(f"{folder}/", "").splitlines()
