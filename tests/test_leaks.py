# SPDX-License-Identifier: Apache-2.0
"""The search for leaks finds what a test leaves behind, and leaves alone what goes by itself."""

import re
import subprocess
import sys
from pathlib import Path

#: One test per kind; each would be forgiven if it ended what it keeps, which is done once all have been judged.
LEAKS = """
import multiprocessing.shared_memory, os, signal, subprocess, sys, threading
import pytest

SLEEP = [sys.executable, "-c", "import signal; signal.pause()"]
PARENT = f"import subprocess; print(subprocess.Popen({SLEEP}, stdout=subprocess.DEVNULL).pid)"

kept = []

@pytest.fixture(scope="session", autouse=True)
def _end():
    yield
    for end in kept:
        end()

def test_thread():
    hold = threading.Event()
    kept.append(hold.set)
    threading.Thread(target=hold.wait, daemon=True).start()

def test_descriptor():
    descriptor = os.open(os.devnull, os.O_RDONLY)
    kept.append(lambda: os.close(descriptor))

def test_child():
    child = subprocess.Popen(SLEEP)
    kept.extend([child.kill, child.wait])

def test_orphan():
    done = subprocess.run([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    kept.append(lambda: os.kill(int(done.stdout), signal.SIGKILL))

def test_segment():
    segment = multiprocessing.shared_memory.SharedMemory(create=True, size=1)
    segment.close()
    kept.append(segment.unlink)
"""

HARMLESS = """
import threading

def test_late_thread():
    threading.Timer(0.05, int).start()

def test_collector_of_zmq():
    import zmq
    with zmq.Context() as context, context.socket(zmq.PAIR) as a, context.socket(zmq.PAIR) as b:
        a.bind("inproc://x")
        b.connect("inproc://x")
        a.send(bytes(1 << 20), copy=False)
        b.recv()

def test_loop_of_zarr():
    import zarr
    zarr.array([1])
"""


def run_pytest(folder: Path, code: str, grace: float) -> str:
    """Run this code as tests of a process of its own, under the fixtures of this folder; return what pytest says."""
    (folder / "test_it.py").write_text(code)
    arguments = [
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "--grace",
        str(grace),
        "--rootdir",
        str(folder),
        str(folder),
    ]
    done = subprocess.run([sys.executable, "-m", "pytest", *arguments], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout


def test_each_kind_of_leak_fails_its_test(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, LEAKS, grace=0.3)
    kinds = {
        "test_thread": "threads",
        "test_descriptor": "file descriptors",
        "test_child": "processes",
        "test_orphan": "processes",
        "test_segment": "shared memory",
    }
    for test, kind in kinds.items():
        assert re.search(f"{test} left behind {kind}: .", output), f"{test} was not found out:\n{output}"


def test_what_goes_by_itself_or_stays_by_design_is_no_leak(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, HARMLESS, grace=20)  # semaphores of a run beside this one come and go
    assert "3 passed" in output, output
    assert "left behind" not in output, output
