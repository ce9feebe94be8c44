# SPDX-License-Identifier: Apache-2.0
"""Take the pictures of dashboard.md, of two runs, into docs/pictures/: ``python docs/screens.py [FOLDER]``.

The Gray-Scott demo, steered by a rule and by hand, gives all but Training, which the plates of
configs/surrogate_heat.yaml give. With ``--all`` every view of both, at 1280 and 390 pixels, light and dark, to
be looked at. Needs the extras ``dashboard``, ``demos`` and ``train``, Playwright and a chromium.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from tests.end_to_end.browser import Pages, chromium  # noqa: E402

VIEWS = ("run", "fields", "series", "training", "steer", "log", "dask")
SPOTS: dict[str, Any] = {
    "run": "gray-scott",
    "simulation": {
        "command": [sys.executable, str(HERE.parent / "demos/gray_scott.py"), "--size", 128, "--steps", 400_000],
        "steps": 40_000,
    },
    "staging": {"nodes": 2},
    "operators": {
        "amount": {"use": "moments", "of": "v", "over": "space", "extremes": False},
        "stats": {"use": "moments", "of": "v", "over": "step", "window": 100},
        "modes": {"use": "pca", "of": ["u", "v"], "components": 6, "window": 100, "every": 50},
        "waves": {"use": "dmd", "of": "v", "components": 6, "window": 100},
        "spread": {
            "use": "histogram",
            "of": "v",
            "over": ["step", "space"],
            "bins": 30,
            "range": [0, 0.5],
            "window": 50,
        },
    },
    "steering": [{"name": "rich", "when": "amount.mean > 0.06", "set": {"feed": 0.019}}],
    "dashboard": {"port": 0},
}
#: What is seen of each run.
SHOWN = {"gray-scott": ("run", "fields", "series", "steer", "log", "dask"), "heat": ("training",)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "pictures")
    parser.add_argument("--run", choices=list(SHOWN), help="of one of the runs only")
    parser.add_argument("--all", action="store_true", help="every view, in both widths and both colours")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    heat = yaml.safe_load((HERE.parent / "configs/surrogate_heat.yaml").read_text())
    heat["simulation"]["command"][:2] = [sys.executable, str(HERE.parent / "demos/heat.py")]
    heat["simulation"]["command"] += ["--generations", 4000]
    asked = {"model": "surrogate", "inputs": ["temperatures", "time"], "targets": "u", "example": True}
    heat["operators"]["trust"] = {"use": "predict", **asked}
    heat["outputs"] = [{"of": ["surrogate", "trust"]}]
    heat["dashboard"] = {"port": 0}
    with tempfile.TemporaryDirectory() as place, chromium() as browser:
        for config in (each for each in (SPOTS, heat) if options.run in (None, each["run"])):
            with running(Path(place), config) as url:
                take(browser, url, config["run"], options.folder, options.all)


@contextmanager
def running(place: Path, config: dict[str, Any]) -> Iterator[str]:
    """Start a run, and yield the address of its dashboard once it has been going on for a while."""
    path = place / f"{config['run']}.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).with_name("insitu")), "run", path.name]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    with subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        url = next(found[0] for line in lines if (found := re.findall(r"Dashboard: (\S+)", line)))
        reading = threading.Thread(target=lambda: list(lines))
        reading.start()
        try:
            yield url
        finally:
            process.terminate()
            reading.join()


def take(browser: Any, url: str, run: str, folder: Path, everything: bool) -> None:
    """Take pictures of one run's pages."""
    pages = Pages(browser, url, viewport={"width": 1280, "height": 900})
    page = pages.page
    if run == "gray-scott":
        pages.open("steer")
        page.wait_for_selector("#control-0-feed-feed:not([disabled])")
        for action in ("pause", "resume"):
            page.click(f"[data-name='{action}'] button")
            pages.until("[data-table='receipts-0'] tr:nth-child(2)", action)
        page.fill("#control-0-feed-feed-exact", "0.0185")
        page.press("#control-0-feed-feed-exact", "Enter")
        pages.until("[data-table='receipts-0']", "0.0185")
        pages.open("run")
        page.wait_for_function("(model('time-0')?.data.at_s || []).length > 25", timeout=120_000)
    else:
        pages.open("training")
        page.wait_for_function("(model('loss-surrogate-0')?.data.x || []).length > 12", timeout=240_000)
        page.wait_for_function(
            "Array.from(model('error-trust-0')?.data.error || []).filter(Number.isFinite).length > 200",
            timeout=240_000,
        )
    for view in VIEWS if everything else SHOWN[run]:
        pages.open(view)
        page.wait_for_timeout(2500)
        for width in (1280, 390) if everything else (1280,):
            for scheme in ("light", "dark") if everything else ("light",):
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(color_scheme=scheme)
                page.wait_for_timeout(400)
                path = folder / (f"{run}-{view}-{width}-{scheme}.png" if everything else f"dashboard-{view}.png")
                pages.picture(folder, path.stem)
                if not everything:
                    # By coverage, so that the few cells of a legend keep their colours.
                    kept = Image.open(path).convert("RGB").quantize(200, Image.Quantize.MAXCOVERAGE)
                    kept.save(path, optimize=True)
        page.set_viewport_size({"width": 1280, "height": 900})
        page.emulate_media(color_scheme="light")
    if pages.errors:
        raise SystemExit(f"A page's script failed: {pages.errors}")
    pages.close()


if __name__ == "__main__":
    main()
