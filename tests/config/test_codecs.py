# SPDX-License-Identifier: Apache-2.0
"""A codec that is not installed, or lacks its tolerance, is a mistake with file and line before anything starts."""

from pathlib import Path

import pytest

from insitu.config import checks
from tests.config.yaml_files import GOOD, load, mistakes


def test_a_codec_that_is_not_installed_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "missing", lambda codec: None if codec == "none" else "blosc2")
    text = GOOD + "variables:\n  v:\n    codec: auto\n"
    install = 'auto needs blosc2, which is not installed; pip install "insitu[codecs]"'
    assert mistakes(tmp_path, text) == [f"melt.yaml:7: variables.v.codec: {install}"]
    assert load(tmp_path, GOOD).rules("v").codec == "none"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ("{v: {codec: zfp}}", 'variables.v.codec: zfp needs to know how far "v" may be off; add tolerance: 1e-6 or'),
        ("{'*': {codec: zfp}, v: {}}", "variables.*.codec: zfp needs to know"),
        ("{v: {codec: lz4, tolerance: 0.1}}", 'variables.v.tolerance: has no meaning for "v" with codec lz4'),
        ("{v: {codec: zfp, tolerance: 0}}", "variables.v.tolerance: expected a number above 0, got 0"),
        ("{v: {codec: zfp, tolerance: .nan}}", "variables.v.tolerance: expected"),
        ("{v: {codec: gzip}}", 'variables.v.codec: expected "none", "lz4", "zstd", "zfp" or "auto", got "gzip"'),
    ],
)
def test_a_tolerance_belongs_to_zfp(tmp_path: Path, variables: str, says: str) -> None:
    [mistake] = mistakes(tmp_path, GOOD + f"variables: {variables}\n")
    assert mistake.startswith(f"melt.yaml:5: {says}")


def test_a_tolerance_for_all_serves_each(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD + "variables: {'*': {tolerance: 0.1, codec: zfp}}\n")
    assert (config.rules("v").codec, config.rules("v").tolerance) == ("zfp", 0.1)
