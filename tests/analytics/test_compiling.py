# SPDX-License-Identifier: Apache-2.0
"""Kernels are cached where they can be, each variant for itself."""

import shutil
import subprocess
import sys
from pathlib import Path

from analytics.kernels.compiling import compiled


def make(bonus, *variant):
    def add(x):
        return x + bonus

    return compiled(add, *variant)


def test_variants_do_not_share_a_cache_file():
    one, two = make(1, "one"), make(2, "two")
    assert (one(1), two(1)) == (2, 3)
    names = {kernel.stats.cache_path + kernel._cache._impl.filename_base for kernel in (one, two)}
    assert len(names) == 2


def test_without_a_place_for_a_cache_a_kernel_is_compiled_all_the_same():
    scope = {}
    exec("def add(x):\n    return x + 1", scope)  # of no file, so numba finds no place beside it
    assert compiled(scope["add"], "nowhere")(1) == 2


def test_processes_that_compile_at_once_compile_each_variant_once(tmp_path):
    shutil.copy(Path(__file__).parent / "compile_at_once.py", tmp_path)
    program = tmp_path / "compile_at_once.py"
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    compiled_, hits, results = ended.stdout.splitlines()
    assert (compiled_, hits, results) == ("2", "2", "[3, 3.0]")
