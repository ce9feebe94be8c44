# SPDX-License-Identifier: Apache-2.0
"""YAML with places: plain data, and the line on which each key stands.

Three things that a plain `yaml.safe_load` loses are kept. The line of every key. A key that appears twice, which is a
mistake here and would silently win there. And the words of a command and of its environment as they were written:
``--seed 007`` is no 7, and ``yes`` no true.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from insitu.config.places import Path, Place, Places
from insitu.config.words import shown
from insitu.errors import Problem

#: Scalars below these keys are text, whatever they look like.
_VERBATIM: tuple[Path, ...] = (("simulation", "command"), ("simulation", "environment"))
_MAPPING = "tag:yaml.org,2002:map"
_SEQUENCE = "tag:yaml.org,2002:seq"
_MERGE = "tag:yaml.org,2002:merge"

#: Where the value of an override stands.
OVERRIDE = Place("--set")


@dataclass(slots=True)
class Document:
    """The data of a file, where each part of it stands, and what is wrong with it as YAML."""

    file: str
    data: Any = None
    places: Places = field(default_factory=Places)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: Path, message: str) -> None:
        self.problems.append(self.places.problem(path, message))


def read(path: str, overrides: Sequence[str] = ()) -> Document:
    """Read a file and apply ``path=value`` overrides to its data; mistakes are in the document's problems."""
    document = Document(path)
    try:
        text = FilePath(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        document.problems.append(Problem("", "there is no such file; give the path of a YAML file", path))
        return document
    except OSError as error:
        document.problems.append(Problem("", f"cannot be read: {error.strerror}", path))
        return document
    except UnicodeDecodeError as error:
        document.problems.append(Problem("", f"is not text in UTF-8: {error.reason} at byte {error.start}", path))
        return document
    document.places[()] = Place(path)
    document.data = _parse(document, text, (), None)
    if document.data is None and not document.problems:
        document.problem((), "is empty; expected at least the keys run, simulation and operators")
    elif not document.problems and not isinstance(document.data, dict):
        document.problem((), f"expected a mapping of keys to values, got {shown(document.data)}")
    for override in overrides if isinstance(document.data, dict) else ():
        _override(document, override)
    return document


def _parse(document: Document, text: str, base: Path, place: Place | None) -> Any:
    """Return the data of a text; its places are lines of the document, or all `place`."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return None if node is None else _Builder(loader, document, place).build(node, base)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        words = ", ".join(part for part in (error.context, error.problem) if part)
        document.places[base] = place or Place(document.file, line)
        document.problem(base, f"is not YAML: {words}")
    except yaml.reader.ReaderError as error:
        document.problem(base, f"is not YAML: the character {chr(error.character)!r} cannot stand in it")
    except RecursionError:
        document.problem(base, "is nested too deeply")
    return None


class _Builder:
    """Turns one tree of YAML nodes into data, and notes places and doubled keys on the way."""

    def __init__(self, loader: yaml.SafeLoader, document: Document, place: Place | None) -> None:
        self._loader = loader
        self._document = document
        self._place = place
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: Path) -> Any:
        if id(node) in self._open:
            raise yaml.MarkedYAMLError(problem="an alias contains itself", problem_mark=node.start_mark)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
                return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _note(self, node: yaml.Node, path: Path) -> None:
        self._document.places[path] = self._place or Place(self._document.file, node.start_mark.line + 1)

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if _is_verbatim(node, path):
            return node.value
        try:
            return self._loader.construct_object(node, deep=True)
        except (ValueError, LookupError, AttributeError) as error:  # PyYAML's, for 2024-13-45 or !!int x
            kind = node.tag.rpartition(":")[2]
            problem = f"{shown(node.value)} is no {kind}; put quotes around it if it is text"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error

    def _item(self, node: yaml.Node, path: Path) -> Any:
        self._note(node, path)
        return self.build(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged |= self._merged(value_node, path)
                continue
            key = _key(key_node)
            below = (*path, key)
            first = self._document.places.get(below)
            self._note(key_node, below)
            if key in own:
                where = f", first on line {first.line}" if first and first.line else ""
                self._document.problem(below, f"appears twice{where}; rename or remove one")
            own[key] = self.build(value_node, below)
        return merged | own

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        """Return what ``<<: *alias`` brings in; of several, the first wins."""
        found = self.build(node, path)
        parts = found if isinstance(found, list) else [found]
        if not all(isinstance(part, dict) for part in parts):
            raise yaml.MarkedYAMLError(problem="<< takes a mapping or a list of them", problem_mark=node.start_mark)
        return {key: value for part in reversed(parts) for key, value in part.items()}


def _key(node: yaml.Node) -> str:
    """Keys are text: one that YAML would read as something else (12, yes) is taken as it was written."""
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.MarkedYAMLError(problem="a key must be a plain word", problem_mark=node.start_mark)
    return str(node.value)


def _is_verbatim(node: yaml.Node, path: Path) -> bool:
    below = any(path[: len(base)] == base for base in _VERBATIM)
    return below and isinstance(node, yaml.ScalarNode) and bool(node.value or node.style)


def _override(document: Document, override: str) -> None:
    """Apply one ``path=value``, whose value is YAML, as if it stood in the file."""
    name, separator, text = override.partition("=")
    if separator and all(parts := name.split(".")):
        _put(document, document.data, (), parts, text)
        return
    problem = Problem("", f"expected path=value, such as staging.nodes=2, got {shown(override)}", OVERRIDE.file)
    document.problems.append(problem)


def _put(document: Document, at: Any, path: Path, parts: list[str], text: str) -> None:
    """Put the value of `text` below `at`, which stands at `path`; mappings on the way are made where missing."""
    key: str | int = parts[0]
    if isinstance(at, list) and parts[0].isdecimal() and int(parts[0]) < len(at):
        key = int(parts[0])
    elif not isinstance(at, dict):
        document.places[path] = OVERRIDE
        document.problem(path, f"has no key {parts[0]} that could be set, it is {shown(at)}")
        return
    below = (*path, key)
    if len(parts) > 1:
        if isinstance(at, dict) and at.get(key) is None:
            at[key] = {}
            document.places[below] = OVERRIDE
        _put(document, at[key], below, parts[1:], text)
        return
    for known in [known for known in document.places if known[: len(below)] == below]:
        del document.places[known]
    document.places[below] = OVERRIDE
    at[key] = _parse(document, text, below, OVERRIDE)
