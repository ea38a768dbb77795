"""What a notebook lets others set: its cell tagged ``parameters``, read but never run.

The cell holds literals only, a line each as ``name: type = value  # help``. That is all the runner
needs to refuse a name that is not declared and a value of another type before anything starts.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINE = re.compile(r"[A-Za-z_]\w*: [^=]+ = .+  # \S.*")


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: its name, annotation as written, default, and line of help."""

    name: str
    type: str
    default: Any
    help: str


def cells(notebook: Path) -> list[dict]:
    """Return a notebook's cells, each ``source`` joined into one string.

    Raises
    ------
    ValueError
        If the file is no notebook.
    """
    try:
        found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [{**cell, "source": "".join(cell["source"])} for cell in found]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook} is not a notebook ({error}); save it again.") from error


def declared(notebook: Path) -> dict[str, Parameter]:
    """Return the parameters that a notebook declares, by name, in their order.

    Raises
    ------
    ValueError
        If there is not exactly one cell tagged ``parameters``, or one of its lines is not
        ``name: type = value  # help`` with a literal value of that type.
    """
    tagged = [c for c in cells(notebook) if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(
            f"{notebook.name} has {len(tagged)} cells tagged 'parameters', but needs exactly one."
        )
    lines = [line for line in tagged[0]["source"].splitlines() if line.strip()]
    found = [_parse(line, notebook.name) for line in lines]
    return {parameter.name: parameter for parameter in found}


def _parse(line: str, where: str) -> Parameter:
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


def check(value: Any, kind: str, what: str) -> None:
    """Raise ValueError, beginning with `what`, unless a value is finite and of a declared type.

    Parameters
    ----------
    value : object
        As YAML or a literal gives it.
    kind : str
        An annotation made of str, int, float, bool, None, ``list[...]``, ``dict[..., ...]``, ``|``.
    what : str
        The subject of the sentence.
    """
    if not _finite(value):
        raise ValueError(f"{what} is {value!r}, which no notebook can hold; give a finite number.")
    if not _fits(value, ast.parse(kind, mode="eval").body):
        raise ValueError(
            f"{what} is {value!r}, of type {type(value).__name__}, but must be {kind}."
        )


def nearest(name: str, names: list[str]) -> str:
    """Return the end of a sentence about an unknown name: the nearest known ones, else all."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(names)
    return "there is " + ", ".join(close) if close else "there is none"


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    if isinstance(value, dict):
        return all(map(_finite, [*value, *value.values()]))
    return not isinstance(value, float) or math.isfinite(value)


def _fits(value: Any, kind: ast.expr) -> bool:
    match kind:
        case ast.Constant(value=None):
            return value is None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Name(id="float"):  # 1 is a float to whoever writes a profile
            return type(value) in (int, float)
        case ast.Name(id="str" | "int" | "bool" as name):
            return type(value).__name__ == name
        case ast.Subscript(value=ast.Name(id="list"), slice=part):
            return isinstance(value, list) and all(_fits(v, part) for v in value)
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[first, second])):
            return isinstance(value, dict) and all(
                _fits(k, first) and _fits(v, second) for k, v in value.items()
            )
    raise ValueError(
        f"The annotation {ast.unparse(kind)!r} is not known; "
        "use str, int, float, bool, None, list[...], dict[..., ...] and |."
    )
