"""Write the measured numbers of the documentation from the records that they come from.

Usage: ``python papermill_runs/measured.py``. A line that ends in ``<!-- from 06: key; key -->``, or
a cell of a table that does, has a number for each key before it, in their order: a decimal number,
an integer or a digest, as the record has. Each is rounded to the digits that it shows. Records:

- a notebook's number: its results in ``reference/expected.json``;
- ``data``: ``data/world/training.json``, as ``conv: accuracy``, and sizes of files;
- ``commands``: ``tests/bench/commands.json``, what the commands of the README take.

Definitions have a source, too: ``<!-- set in FILE -->`` after a paragraph, a row of a table or an
item of a list lists files that contain its other numbers. `untraced` returns numbers with neither.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/trust.md", "data/README.md", "data/CARDS.md")
EXPECTED = ROOT / "papermill_runs" / "reference" / "expected.json"
SOURCE = re.compile(r"<!-- from (\w+): (.*?) -->")
SET = re.compile(r"<!-- set in (.*?) -->")
DECIMAL = re.compile(r"(?<![\w.])-?\d*\.\d+(?![\w.]*\w)")
KINDS = {  # of values, and how each is found in a line
    float: DECIMAL,
    int: re.compile(r"(?<![\w.,])\d+(?:,\d{3})*(?![\d,.]*\w)"),
    str: re.compile(r"(?<=`)[0-9a-f]{64}(?=`)"),
}
Known = Mapping[tuple[str, str], float | str]

# What is no number of the text: code, addresses, other comments, and what picture.py writes.
_PASSAGES = re.compile(
    r"```.*?```|^ {4}[^\n]*$|`(?![0-9a-f]{64}`)[^`\n]*`|\]\([^)]*\)|https?://\S+"
    r"|<!-- first picture.*?<!-- end of first picture -->|<!-- (?!set in ).*?-->",
    re.DOTALL | re.MULTILINE,
)
# Numbers that belong to a name: a version, a licence, a publication, a neuron, an address.
_NAMES = re.compile(
    r"(?:Python|WordNet|CC BY|CC0|CVPR|arXiv|Falcon|neuron) ?\d[\d.]*"
    r"|, (?:19|20)\d\d(?!\d)|\d+(?:\.\d+){3}"
)
_NUMBER = re.compile(
    r"[0-9a-f]{64}|(?<![\w.])(?<!\w-)-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?![\w-]*[A-Za-z])"
)
_BLOCK = re.compile(r"\n\s*\n|\n(?=\||- )")


def values(root: Path = ROOT) -> dict[tuple[str, str], float | str]:
    """Return the values of all records by source and key."""
    published = json.loads((root / EXPECTED.relative_to(ROOT)).read_text("utf-8"))["values"]
    found = {(name[:2], key): one[0] for name, own in published.items() for key, one in own.items()}
    commands = json.loads((root / "tests" / "bench" / "commands.json").read_text("utf-8"))
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    commands["pip install ."] = {"dependencies": len(project["dependencies"])}
    training = json.loads((root / "data" / "world" / "training.json").read_text("utf-8"))
    for source, record in {"commands": commands, "data": training}.items():
        flat = {f"{name}: {key}": x for name, own in record.items() for key, x in own.items()}
        found |= {(source, key): x for key, x in flat.items()}
    found |= {("data", f"{name}: MB"): x for name, x in _sizes(root / "data").items()}
    return found | {("data", key): x for key, x in _counts(root).items()}


def _sizes(folder: Path) -> dict[str, float]:
    """Return the sizes in MB of the folders of the data, and of the files in them."""
    found: dict[str, float] = {}
    for path in (one for one in folder.glob("*/**/*") if one.is_file()):
        for one in [path, *path.parents]:
            if one.is_relative_to(folder) and one != folder:
                name = one.relative_to(folder).as_posix()
                found[name] = found.get(name, 0.0) + path.stat().st_size / 1e6
    return found


def _counts(root: Path) -> dict[str, int]:
    """Return how many classes, scenes, nouns and synsets the files of the concept world list."""
    world = root / "wwwlib" / "world"
    scenes = tomllib.loads((world / "words.toml").read_text("utf-8"))["scenes"]
    nouns = (world / "unseen_nouns.txt").read_text("utf-8").split("\n")
    synsets = (root / "data" / "wordnet" / "data.noun").read_text("utf-8").splitlines()
    return {
        "classes": sum(len(scene["classes"]) for scene in scenes.values()),
        "scenes": len(scenes),
        "unseen nouns": sum(map(bool, nouns)),
        "synsets": sum(not line.startswith(" ") for line in synsets),
    }


def rewritten(text: str, known: Known) -> str:
    """Return a page with its numbers as the records have them.

    Raises
    ------
    ValueError
        If a source is no value of a record, or a line has fewer numbers than sources.
    """
    return "\n".join("".join(_parts(line, known)) for line in text.split("\n"))


def _parts(line: str, known: Known) -> Iterator[str]:
    """Yield a line in parts, with other numbers where it has sources."""
    done = 0
    for place, value in traced(line, known):
        yield line[done : place.start()] + written(value, place[0])
        done = place.end()
    yield line[done:]


def traced(line: str, known: Known) -> Iterator[tuple[re.Match[str], float | str]]:
    """Yield each number of a line that has a source, with the value of that; see `rewritten`."""
    start = 0
    for source in SOURCE.finditer(line):
        keys = [(source[1], key) for key in source[2].split("; ")]
        if unknown := [key for key in keys if key not in known]:
            raise ValueError(f"{unknown[0]} is no value of a record; correct {line!r}.")
        found: list[re.Match[str]] = []
        for key in reversed(keys):  # each is the nearest of its kind before the next one
            end = found[-1].start() if found else source.start()
            found += [*KINDS[type(known[key])].finditer(line, start, end)][-1:]
        if len(found) < len(keys):
            raise ValueError(f"{len(found)} numbers have {len(keys)} sources in {line!r}.")
        yield from zip(reversed(found), (known[key] for key in keys), strict=True)
        start = source.end()


def written(value: float | str, like: str) -> str:
    """Write a number with the digits of another one, without the leading zero if that has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    number = f"{value:.{len(like.partition('.')[2])}f}"
    return re.sub(r"^(-?)0\.", r"\1.", number) if like.lstrip("-")[0] == "." else number


def untraced(text: str, known: Known, root: Path = ROOT) -> list[str]:
    """Return the numbers of a page that have no source, each with the words before it.

    Code, addresses and names, such as those of versions, licences and publications, have none.
    """
    found = []
    for block in _BLOCK.split(_PASSAGES.sub("", _without_traced(text, known))):
        files = [root / name for one in SET.findall(block) for name in one.split("; ")]
        defined = {abs(x) for path in files for x in _numbers(path.read_text("utf-8"))}
        plain = _NAMES.sub("", SET.sub("", block))
        found += [
            plain[max(0, one.start() - 40) : one.end()].replace("\n", " ")
            for one in _NUMBER.finditer(plain)
            if len(one[0]) == 64 or abs(float(one[0].replace(",", ""))) not in defined
        ]
    return found


def _without_traced(text: str, known: Known) -> str:
    lines = text.split("\n")
    for i, line in enumerate(lines):
        for place, _ in reversed([*traced(line, known)]):
            lines[i] = lines[i][: place.start()] + lines[i][place.end() :]
    return "\n".join(lines)


def _numbers(source: str) -> Iterator[float]:
    for one in re.finditer(r"(?<![\w.])(?:\d[\d_,]*(?:\.\d+)?|\.\d+)(?:e-?\d+)?", source):
        yield float(one[0].replace("_", "").replace(",", ""))


if __name__ == "__main__":
    records = values()
    for page in (ROOT / name for name in PAGES):
        page.write_text(rewritten(page.read_text("utf-8"), records), encoding="utf-8")
