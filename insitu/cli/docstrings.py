# SPDX-License-Identifier: Apache-2.0
"""Docstrings on a terminal: paragraphs, lists and tables, as our own docstrings have them, in so many columns.

They are reStructuredText, of which only what a specification here is written in is known: paragraphs, lists with ``*``,
tables whose columns stand between rulers of ``=``, indented lines, which stay as they are, and doctests, which are left
out, as they are for who reads the source.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator

_RULER = re.compile(r"=+(  +=+)+")
_MARKS = re.compile(r"\*\*(\S.*?)\*\*|``(.*?)``", re.DOTALL)

#: A row of a table: what stands in each column, by the column's heading.
Row = dict[str, str]


def documentation(what: type) -> str:
    """Return the class's own docstring; the base's would describe something else."""
    return inspect.cleandoc(what.__dict__.get("__doc__") or "(it has no docstring)")


def plain(text: str) -> str:
    """Take the marks off.

    >>> plain("**Merge.** Exact for ``over: step``, in *any* order of `of`.")
    'Merge. Exact for over: step, in *any* order of `of`.'
    """
    return _MARKS.sub(lambda found: found[1] or found[2] or "", text)


def results(text: str) -> list[Row]:
    """Return the rows of the table of results.

    >>> results("Sums.\\n\\n======  =====\\nresult  value\\n======  =====\\n``n``   how\\n        many\\n======  =====")
    [{'result': 'n', 'value': 'how many'}]
    """
    tables = (_table(block) for block in _blocks(text) if _RULER.fullmatch(block[0]))
    return next((rows for rows in tables if rows and "result" in rows[0]), [])


def whole(text: str, width: int) -> str:
    """Return all of a docstring in so many columns."""
    return "\n\n".join(shown for block in _blocks(text) if (shown := "\n".join(_shown(block, width))))


def _blocks(text: str) -> Iterator[list[str]]:
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        yield block.split("\n")


def _shown(block: list[str], width: int) -> Iterator[str]:
    if _RULER.fullmatch(block[0]):
        for row in _table(block):
            name, *rest = (each for each in row.values() if each)
            yield from textwrap.wrap(f"{name}: {'; '.join(rest[::-1])}", width, subsequent_indent="    ")
    elif block[0].startswith("* "):
        for item in re.split(r"\n(?=\* )", "\n".join(block)):
            yield from textwrap.wrap(plain(item), width, subsequent_indent="  ")
    elif block[0].startswith(" "):
        for line in block:
            yield from textwrap.wrap(line, width, subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2))
    elif not block[0].startswith(">>>"):
        yield from textwrap.wrap(plain(" ".join(block)), width)


def _table(block: list[str]) -> list[Row]:
    """Read a table; a line without anything in its first column goes on with the row above."""
    columns = [found.span() for found in re.finditer("=+", block[0])]
    columns[-1] = (columns[-1][0], max(map(len, block)))
    rows: list[list[str]] = []
    for line in (line for line in block if not _RULER.fullmatch(line)):
        cells = [line[low:high].strip() for low, high in columns]
        if cells[0] or not rows:
            rows.append(cells)
        else:
            rows[-1] = [f"{above} {more}".strip() for above, more in zip(rows[-1], cells, strict=True)]
    headings, *values = rows
    return [{heading: plain(cell) for heading, cell in zip(headings, row, strict=True)} for row in values]
