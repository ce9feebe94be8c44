# SPDX-License-Identifier: Apache-2.0
"""What looking at a run costs the run, and how old a picture is when it is seen.

    python -m benchmarks.dashboard [--rounds 2] [--seconds 6]

A simulation publishes a field of 512 x 512 float64 ten times a second and computes between; nobody looks at it, then
one browser at its *Fields* view, then that browser and 19 others that take every update as fast as it comes. The states
take turns in one run. Needs chromium and playwright.

* Slowdown: how much longer a step of the simulation takes (what it computes, and the put). Goal: below 2 %.
* Put to pixel: from the put of a step to the moment when its picture is drawn. Goal: below 300 ms.
* CPU in shares of one core: of the controller, of the dashboard, of the staging nodes, of the browser.
"""

import argparse
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

from benchmarks.common import report

SIMULATION = """
import threading, time
import numpy as np
import insitu
work = np.random.default_rng(0).normal(size=(300, 300))
u = np.random.default_rng(1).normal(size=(512, 512))
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
    parser = argparse.ArgumentParser(description="Time what looking at a run costs.")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/dashboard.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        rows = measure(Path(folder), browser, options.rounds, options.seconds)
        browser.close()
    report("Looking at a field of 512 x 512 float64 at 10 Hz (medians of rounds)", rows, options.json)


def measure(folder: Path, browser: Any, rounds: int, seconds: float) -> list[dict[str, Any]]:
    (folder / "simulation.py").write_text(SIMULATION)
    (folder / "looked.yaml").write_text(CONFIG)
    insitu = [sys.executable, "-c", "from insitu.cli import main; main()", "run", "looked.yaml"]
    with (folder / "stderr.txt").open("w") as stderr:
        run = subprocess.Popen(insitu, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        url = wait_for_url(folder / "stderr.txt")
        found: dict[int, list[dict[str, Any]]] = {0: [], 1: [], 20: []}
        for _ in range(rounds):
            for viewers, rows in found.items():
                rows.append(one_state(folder, run.pid, browser, url, viewers, seconds))
                print(rows[-1], flush=True)
    finally:
        run.terminate()
        run.wait()
    return [{"viewers": viewers} | medians(rows) for viewers, rows in found.items()]


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
    first = {}
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
