# SPDX-License-Identifier: Apache-2.0
"""What looking at a run costs the run, and how old a picture is when it is seen.

    python -m benchmarks.dashboard [--rounds 2] [--quick]

A simulation publishes a field of 512 x 512 float64 ten times a second and computes between; nobody looks at it, then
one browser at its *Fields* view, then that browser and 19 others that take every update as fast as it comes. The states
take turns in one run. In a second run the field has 256 x 256 cells, and nobody or one browser looks. Needs chromium
and playwright.

* Slowdown: how much longer a step of the simulation takes (what it computes, and the put). Goal with 20 viewers: below
  2 %.
* Put to pixel: from the put of a step to the moment when its picture is drawn. Goal, median and 95 %: below 300 ms.
* CPU in shares of one core: of the controller, of the dashboard, of the staging nodes, of the browser. Goal with one
  viewer of 256 x 256: the dashboard below 8 %, the browser below 35 %.
* Ready: until a page shows its first picture. Goal: below 2 s.
"""

import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import sync_playwright
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from benchmarks.common import arguments, report
from benchmarks.goals import Goal

SIMULATION = """
import threading, time
import numpy as np
import insitu
work = np.random.default_rng(0).normal(size=(300, 300))
u = np.random.default_rng(1).normal(size=(SIZE, SIZE))
pause = threading.Event()
with insitu.Client() as sim, open("steps.txt", "w", buffering=1) as told:
    for n in range(1_000_000):
        begin = time.perf_counter()
        for _ in range(20):
            np.linalg.svd(work[:60], full_matrices=False)
        np.add(u, 1e-3, out=u)
        put_at = time.time()
        with sim.step(n) as step:
            step.put("u", u, shape=u.shape, dims=("y", "x"))
        busy = time.perf_counter() - begin
        told.write(f"{n} {put_at} {busy}\\n")
        if sim.stopping:
            break
        pause.wait(max(0.0, 0.1 - busy))
"""
CONFIG = """
run: looked
simulation: {command: [python, simulation.py], environment: {OMP_NUM_THREADS: 1, OPENBLAS_NUM_THREADS: 1}}
operators:
  stats: {use: moments, of: u, over: step, window: 50}
dashboard: {port: 0}
"""
#: By the field's width, how many look at it.
VIEWERS = {512: (0, 1, 20), 256: (0, 1)}
#: Notes when a picture was drawn, and of which step.
WATCH = """() => {
  window.seen = [];
  const before = fill_image;
  fill_image = async (name, image) => {
    await before(name, image);
    if (name !== "field-0") return;
    const text = document.querySelector("[data-text='say-0']").textContent;
    const step = Number(/step (\\d+)/.exec(text)[1]);
    requestAnimationFrame(() => window.seen.push([step, performance.timeOrigin + performance.now()]));
  };
}"""


class Others:
    """Viewers without a screen, which take what comes."""

    def __init__(self, url: str, number: int) -> None:
        self.nbytes = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._look(url, number),))
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._thread.join()

    async def _look(self, url: str, number: int) -> None:
        await asyncio.gather(*(self._one(url) for _ in range(number)))

    async def _one(self, url: str) -> None:
        token = url.rpartition("=")[2]
        address = url.rpartition("/")[0].replace("http", "ws") + "/feed?view=fields"
        viewer = await websocket_connect(HTTPRequest(address, headers={"Authorization": f"Bearer {token}"}))
        while not self._ending.is_set():
            try:
                said = await asyncio.wait_for(asyncio.shield(viewer.read_message()), 1.0)
            except TimeoutError:
                continue
            self.nbytes += len(str(said))
            await viewer.write_message("more")
        viewer.close()


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU time of some processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def steps(folder: Path, begin: float, end: float) -> list[tuple[int, float, float]]:
    """Return number, time of the put and busy time of the steps between two moments."""
    lines = [line.split() for line in (folder / "steps.txt").read_text().splitlines()[:-1]]
    return [(int(n), float(at), float(busy)) for n, at, busy in lines if begin <= float(at) < end]


def main() -> None:
    options = arguments(__doc__, rounds=2)
    seconds, rows = 2.0 if options.quick else 6.0, []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        for size, viewers in VIEWERS.items():
            with tempfile.TemporaryDirectory() as folder:
                rows += measure(Path(folder), browser, size, viewers, options.rounds, seconds)
        browser.close()
    path = Path("benchmarks/results/dashboard.json")
    report("Looking at a field of float64 at 10 Hz (medians of rounds)", rows, path)
    for goal in goals(rows):
        verdict = "reached" if goal.reached else "missed"
        print(f"{verdict}: {goal.what}: {goal.value:.3g}, goal {goal.sign} {goal.bound:g}")


def goals(rows: list[dict[str, Any]]) -> list[Goal]:
    """Return what is to be reached, and what was."""
    at = {(row["cells"], row["viewers"]): row for row in rows}
    alone, one, many, small = at[512, 0], at[512, 1], at[512, 20], at[256, 1]
    return [
        Goal("slowdown with 20 viewers, %", "≤", 2.0, 100 * (many["step_ms"] / alone["step_ms"] - 1)),
        Goal("put to pixel, median, ms", "≤", 300.0, one["pixel_p50_ms"]),
        Goal("put to pixel, 95 %, ms", "≤", 300.0, one["pixel_p95_ms"]),
        Goal("dashboard at 256 x 256, % of a core", "≤", 8.0, 100 * small["dashboard_cpu"]),
        Goal("browser at 256 x 256, % of a core", "≤", 35.0, 100 * small["browser_cpu"]),
        Goal("page ready, s", "≤", 2.0, max(one["ready_s"], small["ready_s"])),
    ]


def measure(
    folder: Path, browser: Any, size: int, viewers: tuple[int, ...], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    (folder / "simulation.py").write_text(SIMULATION.replace("SIZE", str(size)))
    (folder / "looked.yaml").write_text(CONFIG)
    insitu = [sys.executable, "-c", "from insitu.cli import main; main()", "run", "looked.yaml"]
    with (folder / "stderr.txt").open("w") as stderr:
        run = subprocess.Popen(insitu, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        url = wait_for_url(folder / "stderr.txt")
        found: dict[int, list[dict[str, Any]]] = {number: [] for number in viewers}
        for _ in range(rounds):
            for number, rows in found.items():
                rows.append(one_state(folder, run.pid, browser, url, number, seconds))
                print(rows[-1], flush=True)
    finally:
        run.terminate()
        run.wait()
    return [{"cells": size, "viewers": number} | medians(rows) for number, rows in found.items()]


def wait_for_url(path: Path) -> str:
    pause, deadline = threading.Event(), time.monotonic() + 60
    while time.monotonic() < deadline:
        addresses = re.findall(r"Dashboard: (http\S+)", path.read_text())
        if addresses and (path.parent / "steps.txt").exists():
            return str(addresses[0])
        pause.wait(0.1)
    raise SystemExit(f"no dashboard after 60 s:\n{path.read_text()}")


def one_state(folder: Path, pid: int, browser: Any, url: str, viewers: int, seconds: float) -> dict[str, Any]:
    """Measure one state for some seconds."""
    page, ready_s, others = None, float("nan"), None
    if viewers:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        before = time.perf_counter()
        page.goto(url.rpartition("/")[0] + "/fields")
        page.wait_for_function("(model('field-0')?.data.image || []).length")
        ready_s = time.perf_counter() - before
        page.evaluate(WATCH)
    if viewers > 1:
        others = Others(url, viewers - 1)
    controller = psutil.Process(pid)
    children = controller.children(recursive=True)
    groups = {
        "controller": [controller],
        "dashboard": [child for child in children if "insitu.dashboard" in child.cmdline()],
        "staging": [child for child in children if any("spawn_main" in word for word in child.cmdline())],
        "browser": [each for each in psutil.process_iter() if page is not None and "chromium" in each.name()],
    }
    threading.Event().wait(1.0)
    begin, used, nbytes = (
        time.time(),
        {name: cpu_s(group) for name, group in groups.items()},
        others.nbytes if others else 0,
    )
    if page is not None:
        page.wait_for_timeout(1000 * seconds)
    else:
        threading.Event().wait(seconds)
    end = time.time()
    cpu = {f"{name}_cpu": (cpu_s(group) - used[name]) / (end - begin) for name, group in groups.items()}
    seen = page.evaluate("window.seen") if page is not None else []
    received = (others.nbytes - nbytes) / (viewers - 1) / (end - begin) if others else float("nan")
    if others is not None:
        others.close()
    if page is not None:
        page.close()
    taken = steps(folder, begin, end)
    put_at = {n: at for n, at, _ in taken}
    first: dict[int, float] = {}
    for n, at in seen:
        first.setdefault(n, at / 1000)
    ages = sorted(at - put_at[n] for n, at in first.items() if n in put_at)
    return {
        "step_ms": 1000 * statistics.median(busy for *_, busy in taken),
        **cpu,
        "pictures_s": len(ages) / (end - begin),
        "pixel_p50_ms": 1000 * ages[len(ages) // 2] if ages else float("nan"),
        "pixel_p95_ms": 1000 * ages[int(0.95 * len(ages))] if ages else float("nan"),
        "kB_s_each": received / 1000,
        "ready_s": ready_s,
    }


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


if __name__ == "__main__":
    main()
