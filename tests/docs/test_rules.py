# SPDX-License-Identifier: Apache-2.0
"""The page on rules says what the code knows: its tables are the vocabulary, and its configurations load."""

import re
from pathlib import Path

import pytest
import yaml

from insitu import config, registry
from insitu.steering.series import OVER_CELLS, OVER_STEPS
from insitu.steering.vocabulary import FUNCTIONS, NAMES

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
AROUND = {"run": "page", "simulation": {"command": "true"}}
OPERATORS = {
    "stats": {"use": "moments", "of": "u", "over": ["step", "space"], "window": 50},
    "energy": {"use": "moments", "of": "u", "over": "space"},
    "modes": {"use": "dmd", "of": "u", "window": 50},
}


def table(name: str) -> dict[str, str]:
    """The rows of a marked table: the word of the first column, and what the second says."""
    (rows,) = re.findall(f"<!-- {name} -->(.*?)<!-- end -->", PAGE, re.DOTALL)
    return dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", rows, re.MULTILINE))


def test_the_words_over_results_are_those_of_the_code() -> None:
    assert table("over_steps") == OVER_STEPS


def test_the_functions_are_those_of_the_code() -> None:
    assert table("functions") == {name: function.meaning for name, function in FUNCTIONS.items()}


def test_every_other_word_stands_on_the_page() -> None:
    for word in (*OVER_CELLS, *NAMES, *registry.CONTROLLERS):
        assert f"`{word}`" in PAGE, word


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_every_configuration_of_the_page_loads(tmp_path: Path, block: str) -> None:
    text = block.replace("my_lab:Controller", "tests.config.thermostat:Thermostat").replace("gain: 3", "setpoint: 3")
    data = AROUND | {"operators": OPERATORS} | yaml.safe_load(text)
    data["steering"] = yaml.safe_load(yaml.safe_dump(data["steering"]))
    (tmp_path / "page.yaml").write_text(yaml.safe_dump(data))
    assert config.load(tmp_path / "page.yaml").steering != config.Config.model_fields["steering"].default
