# SPDX-License-Identifier: Apache-2.0
"""The page about networks, done as it says."""

import re
from typing import Any

import pytest
import torch

from tests.docs.test_tutorial import DOCS

PAGE = (DOCS / "networks.md").read_text()


def test_what_the_page_shows_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    before = torch.get_num_threads()
    for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(text, names)
    torch.set_num_threads(before)
    said = re.match(r"(\d+) batches, loss (\d\.\d+) ", capsys.readouterr().out)
    assert said is not None
    assert int(said[1]) > 250
    assert float(said[2]) < 0.3
    assert names["gate"].trusts(0.0)
    assert not names["gate"].trusts(10.0)
