"""The parameters of a notebook: its cell tagged ``parameters``, parsed but never executed.

The cell holds literals only, one a line as ``name: type = value  # help``. The runner therefore
rejects a name that is not declared and a value of another type before anything starts.
"""

from __future__ import annotations

import ast
import csv
import difflib
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

LINE = re.compile(r"[A-Za-z_]\w*: [^=]+ = .+  # \S.*")
BOOLEANS = {"true": True, "false": False}
NONE = dict.fromkeys(("", "none", "null", "~"))
SCALARS = {  # the types that an annotation may name: of values, and how text is converted
    "str": ((str,), str),
    "int": ((int,), int),
    "float": ((int, float), float),  # 1 is a float in YAML written by hand
    "bool": ((bool,), lambda text: BOOLEANS[text.strip().lower()]),
    "None": ((NoneType,), lambda text: NONE[text.strip().lower()]),
    "dict": ((dict,), lambda text: read_yaml(text)),
}
# `kind:`, perhaps several; a path or another name; perhaps `:function`.
_PARTS = re.compile(r"((?:[A-Za-z][\w-]*:)*)(.*?)((?::[A-Za-z_]\w*)?)", re.DOTALL)
_BEFORE_PATHS = ("file:", "broden:", "places365:", "wordnet:", "local-dir:")
_ENDINGS = (".pth", ".pt", ".tar", ".safetensors", ".txt", ".csv", ".json", ".parquet", ".py")


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: its name, annotation as written, default, and line of help."""

    name: str
    type: str
    default: Any
    help: str

    def split(self, text: str, folder: Path) -> tuple[str, str, str]:
        """Split a value into what precedes a path in it, the path, "" if none, and what follows.

        All of a ``..._root`` is a path, and so is what follows ``file:`` and the like, begins with
        ``./``, ``../``, ``/`` or ``~``, or ends like a file. Other text is one if it exists in
        `folder`, and has a slash or a dot, or None is the parameter's default.
        """
        root = self.name.endswith(("_root", "_roots"))
        whole = root or _exists(text, folder)
        before, path, behind = ("", text, "") if whole else _PARTS.fullmatch(text).groups()
        written = path.startswith(("./", "../", "/", "~")) or path.endswith(_ENDINGS)
        optional = "None" in self.type and self.default in (None, [])
        possible = optional or "/" in path or "." in path
        is_path = root or written or before.endswith(_BEFORE_PATHS)
        if "://" in text or not (path and (is_path or (possible and _exists(path, folder)))):
            return text, "", ""
        return before, path, behind

    def moved(self, text: str, here: Path, there: Path) -> str:
        """Return a value whose relative path starts at one folder for use in another one."""
        before, path, behind = self.split(text, here)
        path = os.path.expanduser(path)
        if not path or os.path.isabs(path):
            return text
        return f"{before}{os.path.relpath(here / path, there)}{behind}"

    def is_missing(self, text: str, folder: Path) -> bool:
        """Whether a value names a path, which may be relative to `folder`, and nothing is there."""
        path = self.split(text, folder)[1]
        return bool(path) and not _exists(path, folder)


def paths(value: Any, folder: Path) -> set[Path]:
    """Return the paths that exist in `folder` and that a value, however deep in it, may name."""
    named = {one for text in texts(value) for one in (text, _PARTS.fullmatch(text)[2])}
    return {folder / os.path.expanduser(one) for one in named if one and _exists(one, folder)}


def _exists(path: str, folder: Path) -> bool:
    return os.path.exists(os.path.join(folder, os.path.expanduser(path)))


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value with its strings changed, however deep in lists and in values of dicts."""
    if isinstance(value, dict):
        return {key: changed(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [changed(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


def texts(value: Any) -> list[str]:
    """Return every string in a value, however deep in lists and in values of dicts."""
    found: list[str] = []
    changed(value, lambda text: found.append(text) or text)
    return found


def cells(notebook: Path) -> list[dict]:
    """Return a notebook's cells, each ``source`` joined into one string."""
    try:
        found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [{**cell, "source": "".join(cell["source"])} for cell in found]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook} is not a notebook ({error}); save it again.") from error


def behind_url(values: Any) -> str | None:
    """Return a value that is a URL, whose content may change unnoticed, if there is one."""
    return next((text for text in texts(values) if "://" in text), None)


def declared(notebook: Path) -> dict[str, Parameter]:
    """Return the parameters that a notebook declares, by name; ValueError if any is malformed."""
    tagged = [c for c in cells(notebook) if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        found = f"{len(tagged)} cells tagged 'parameters'"
        raise ValueError(f"{notebook.name} has {found}, but needs exactly one.")
    lines = filter(str.strip, tagged[0]["source"].splitlines())
    return {one.name: one for one in (_parameter(line, notebook.name) for line in lines)}


def _parameter(line: str, where: str) -> Parameter:
    complaint = f"{where}: the parameter line {line!r} is not `name: type = value  # help`"
    if not LINE.fullmatch(line):
        raise ValueError(f"{complaint}; write it so.")
    try:
        statement = ast.parse(line).body[0]
        default = ast.literal_eval(statement.value)
        kind = ast.unparse(statement.annotation)
    except (SyntaxError, ValueError, AttributeError) as error:
        raise ValueError(f"{complaint} with a literal value ({error}); write it so.") from error
    check(default, kind, f"{where}: the default of {statement.target.id!r}")
    return Parameter(statement.target.id, kind, default, line.rpartition("  # ")[2])


def unknown(sentence: str, name: object, names: Iterable[str]) -> ValueError:
    """Return an error about an unknown name that ends with the nearest known ones, else all."""
    close = difflib.get_close_matches(str(name), names := [*names], n=3, cutoff=0.5)
    return ValueError(f"{sentence}; there is {', '.join(close or sorted(names)) or 'none'}.")


def check(value: Any, kind: str, what: str) -> None:
    """Raise ValueError unless a value of YAML or a literal is of a declared type, and finite.

    The type is an annotation made of `SCALARS`, ``list[...]``, ``dict[..., ...]`` and ``|``; `what`
    is the subject of the sentence in the error.
    """
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError):
        needed = "which JSON cannot hold; give finite numbers, texts, lists and dicts of them"
        raise ValueError(f"{what} is {value!r:.200}, {needed}.") from None
    declared_type = ast.parse(kind, mode="eval").body
    if not _fits(value, declared_type):
        hint = f"; write {[value]!r}" if _fits([value], declared_type) else ""
        found = f"{value!r:.200}, of type {type(value).__name__}"
        raise ValueError(f"{what} is {found}, but must be {kind}{hint}.")


def parse(text: str, kind: str, what: str) -> Any:
    """Convert text from the command line to a declared type; see `check` for type and errors.

    Text stays as it is for ``str``. A list is ``a,b`` or ``[a, b]``; double quotes protect an
    element with a comma. A dict is written as in YAML.
    """
    try:
        value = _converted(text, ast.parse(kind, mode="eval").body)
    except (ValueError, KeyError, csv.Error):
        raise ValueError(f"{what} is {text!r}, but must be {kind}.") from None
    check(value, kind, what)
    return value


def _fits(value: Any, kind: ast.expr) -> bool:
    match kind:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Subscript(value=ast.Name(id="list"), slice=part):
            return isinstance(value, list) and all(_fits(v, part) for v in value)
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[first, second])):
            return isinstance(value, dict) and all(
                _fits(k, first) and _fits(v, second) for k, v in value.items()
            )
    if (name := ast.unparse(kind)) not in SCALARS:
        known = f"use {', '.join(SCALARS)}, list[...], dict[..., ...] and |."
        raise ValueError(f"The annotation {name!r} is not known; {known}")
    return type(value) in SCALARS[name][0]


def _converted(text: Any, kind: ast.expr) -> Any:
    """Convert text, or lists and dicts of texts; ValueError or KeyError if it is no such type."""
    match kind:
        case ast.BinOp(left=left, right=right):
            try:  # None is written last, but `null` is no text where None is allowed
                return _converted(text, right)
            except (ValueError, KeyError):
                return _converted(text, left)
        case ast.Subscript(value=ast.Name(id="list"), slice=part):
            elements = text if isinstance(text, list) else _elements(text)
            return [_converted(element, part) for element in elements]
        case ast.Subscript(slice=ast.Tuple(elts=[first, second])):
            pairs = read_yaml(text, _Texts) if isinstance(text, str) else text
            if isinstance(pairs, dict):
                return {_converted(k, first): _converted(v, second) for k, v in pairs.items()}
    if not isinstance(text, str) or isinstance(kind, ast.Subscript):
        raise ValueError(f"{text!r} is no {ast.unparse(kind)}")
    return SCALARS[ast.unparse(kind)][1](text)


def _elements(text: str) -> list[str]:
    inner = re.sub(r"^\s*\[(.*)\]\s*$", r"\1", text, flags=re.DOTALL)
    rows = csv.reader([inner], skipinitialspace=True, strict=True) if inner.strip() else []
    return [re.sub(r"^'(.*)'$", r"\1", element.strip()) for row in rows for element in row]


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice in a mapping, and no alias contains itself."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        node = super().compose_node(parent, index)
        if node.end_mark is None:  # an alias of a collection that has not ended yet
            raise yaml.MarkedYAMLError("an alias contains itself", node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen:
                raise yaml.MarkedYAMLError(f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return node


# YAML 1.1 reads 010 as 8 and 12:30 as 750; here digits alone are a number, in base ten.
_INT = "tag:yaml.org,2002:int"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != _INT]
    for first, known in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?[0-9]+\Z"), list("-+0123456789"))
_Loader.add_constructor(_INT, lambda _, node: int(node.value))

# The same with every scalar as the text that it is.
_Texts = type("_Texts", (_Loader,), {"yaml_implicit_resolvers": {}})


def read_yaml(text: str, loader: type[yaml.SafeLoader] = _Loader) -> Any:
    """Return the plain values of a YAML document; ValueError if it is not one."""
    try:
        return loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
