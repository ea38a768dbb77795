"""Write the measured numbers of the documentation from the values of the published run.

Usage: ``python papermill_runs/measured.py``. A line that ends in ``<!-- from 06: key; key -->``, or
a cell of a table that does, has a decimal number for each key before it, in their order; each is
rounded to the digits that it shows. Keys are those of the notebook's results in
``reference/expected.json``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/trust.md")
EXPECTED = ROOT / "papermill_runs" / "reference" / "expected.json"
SOURCE = re.compile(r"<!-- from (\d\d): (.*?) -->")
DECIMAL = re.compile(r"(?<![\w.])-?\d*\.\d+(?![\w.]*\w)")


def values(path: Path = EXPECTED) -> dict[tuple[str, str], float]:
    """Return the published values by the number of their notebook and their key."""
    found = json.loads(path.read_text("utf-8"))["values"]
    return {(name[:2], key): one[0] for name, own in found.items() for key, one in own.items()}


def rewritten(text: str, known: Mapping[tuple[str, str], float]) -> str:
    """Return a page with its numbers as the run has them.

    Raises
    ------
    ValueError
        If a source is no value of the run, or a line has fewer decimal numbers than sources.
    """
    return "\n".join("".join(_parts(line, known)) for line in text.split("\n"))


def _parts(line: str, known: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """Yield a line in parts, with other numbers where it has sources."""
    done = 0
    for source in SOURCE.finditer(line):
        keys = [(source[1], key) for key in source[2].split("; ")]
        places = [*DECIMAL.finditer(line, done, source.start())]
        if unknown := [key for key in keys if key not in known]:
            raise ValueError(f"{unknown[0]} is no value of the published run; correct {line!r}.")
        if len(places) < len(keys):
            raise ValueError(f"{len(places)} decimal numbers have {len(keys)} sources in {line!r}.")
        for key, place in zip(keys, places[-len(keys) :], strict=True):
            yield line[done : place.start()] + written(known[key], place[0])
            done = place.end()
    yield line[done:]


def written(value: float, like: str) -> str:
    """Write a number with the digits of another one, without the leading zero if that has none."""
    number = f"{value:.{len(like.partition('.')[2])}f}"
    return re.sub(r"^(-?)0\.", r"\1.", number) if like.lstrip("-")[0] == "." else number


if __name__ == "__main__":
    for page in (ROOT / name for name in PAGES):
        page.write_text(rewritten(page.read_text("utf-8"), values()), encoding="utf-8")
