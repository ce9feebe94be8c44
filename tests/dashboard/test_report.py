# SPDX-License-Identifier: Apache-2.0
"""The report's pictures, and what it says of runs that went wrong."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from bokeh.palettes import Viridis256
from PIL import Image

from insitu.dashboard.report import html, png, svg, write_report
from insitu.errors import ConfigError, RunError
from tests.dashboard.snapshots import snapshot


def pixels(values: np.ndarray) -> np.ndarray:
    data = base64.b64decode(png.picture(values).removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_picture_has_the_colours_of_viridis_with_the_first_row_at_the_bottom() -> None:
    shown = pixels(np.arange(255.0).reshape(5, 51))[::-1].reshape(255, 3).astype(int)
    known = np.array([[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in Viridis256])
    wanted = known[np.round(np.arange(255) / 254 * 255).astype(int)]
    assert np.abs(shown - wanted).max() <= 7


def test_what_is_not_finite_is_grey_or_at_the_end_of_the_scale() -> None:
    shown = pixels(np.array([[0.0, 1.0, np.nan, np.inf, -np.inf]]))[0].tolist()
    assert shown[2] == [128, 128, 128]
    assert shown[3] == shown[1]
    assert shown[4] == shown[0]
    assert pixels(np.full((2, 2), np.nan)).tolist() == [[[128] * 3] * 2] * 2


def test_a_line_is_interrupted_where_a_value_is_not_finite() -> None:
    drawn = svg.line([0, 1, 2, 3, 4], [1.0, 2.0, float("nan"), 3.0, 4.0], "x", 'y "<"', "#000000")
    assert drawn.count("<polyline") == 2
    assert 'y "<"' not in drawn
    assert svg.line([0.0], [float("nan")], "x", "y", "#000000") == ""


def left(folder: Path, **report: object) -> Path:
    (folder / "config.yaml").write_text("run: '<b>'\n")
    told = {"run": "melt", "status": "failed", "duration_s": 1.0, "reasons": ["<script>alert(1)</script>"], **report}
    (folder / "report.json").write_text(json.dumps(told))
    return folder


def test_a_run_without_results_and_without_a_snapshot_has_a_report(tmp_path: Path) -> None:
    text = html(left(tmp_path))
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "There are no results that could be drawn." in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_the_report_says_where_the_time_went(tmp_path: Path) -> None:
    told = snapshot([0.0, 1.0, 2.0], [0.0, 0.0, 0.0])
    (tmp_path / "snapshot.json").write_text(json.dumps(told))
    text = html(left(tmp_path))
    assert text.count("<polygon") == 7
    assert "it waits for 50 % of its time" in text
    assert "no room" in text


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no report of a run"):
        write_report(tmp_path)
    left(tmp_path)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(RunError, match="Cannot write"):
        write_report(tmp_path)
