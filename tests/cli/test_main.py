# SPDX-License-Identifier: Apache-2.0
import importlib
import subprocess
import sys

import click
import pytest

from insitu import __version__
from insitu.cli import COMMANDS
from insitu.errors import RunError
from tests.cli.calls import insitu


def test_help_lists_every_command() -> None:
    result = insitu("--help")
    assert result.exit_code == 0
    for name, about in COMMANDS.items():
        assert f"  {name}" in result.stdout
        assert about in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_the_same_of_itself(name: str) -> None:
    command = importlib.import_module(f"insitu.cli.{name}").command
    assert command.get_short_help_str(limit=200).rstrip(".") == COMMANDS[name].rstrip(".")
    result = insitu(name, "--help")
    assert result.exit_code == 0
    assert COMMANDS[name] in result.stdout


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = "import sys\nfrom insitu.cli import main\nmain(['--help'], standalone_mode=False)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "insitu.cli" in loaded
    assert not loaded & {"insitu.cli.check", "pydantic", "numpy", "dask", "zmq", "rich"}


def test_the_version() -> None:
    assert insitu("--version").stdout == f"insitu, version {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [("chek",), ("check",), ("check", "a", "b"), ("check", "--sat", "x"), ("report",)]
)
def test_a_wrong_call_ends_with_status_2_and_a_hint(arguments: tuple[str, ...]) -> None:
    result = insitu(*arguments)
    assert result.exit_code == 2
    assert "insitu" in result.stderr
    assert "--help" in result.stderr
    assert result.stdout == ""


def test_a_run_that_failed_ends_with_status_1_and_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise RunError("port 5555 is taken; choose another")

    monkeypatch.setattr("insitu.cli.check.command", failing)
    result = insitu("check")
    assert result.exit_code == 1
    assert (result.stdout, result.stderr) == ("", "port 5555 is taken; choose another\n")


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("insitu.cli.check.command", failing)
    assert isinstance(insitu("check").exception, ZeroDivisionError)
