# SPDX-License-Identifier: Apache-2.0
"""``python -m insitu.cli``: the command line of the interpreter that runs this."""

from insitu.cli import main

main()
