# SPDX-License-Identifier: Apache-2.0
"""Calling the command line in this process."""

from click.testing import CliRunner, Result

from insitu.cli import main


def insitu(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="insitu")
