"""The modules of the package, what each imports, and a picture of it.

`tests/test_architecture.py` holds the imports to the layout, and `conf.py` draws them.
"""

import ast
from collections import Counter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "wwwlib").rglob("*.py"))
CORE = (
    "registry", "store", "images", "targets", "activations", "distributed", "exemplars",
    "language", "concepts", "contributions", "evaluation", "maps", "plots", "atlas", "scores",
    "short_way", "__main__",
)  # fmt: skip
FOLDERS = {  # and the other folders that each may import, beside the core
    "world": set(),
    "baselines": set(),
    "studies": {"world", "baselines"},
    "explorer": {"world", "baselines", "studies"},
}
_CELL, _LEFT, _TOP = 22, 120, 110  # pixels: a cell, the names of rows, those of columns


def module(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in LIBRARY}


def imports(name: str) -> set[str]:
    """Return the modules of wwwlib that one of them imports, wherever in it the import stands."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            inner = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner or {base}
    return {one for one in found if one in MODULES} - {"wwwlib", name}


def part(name: str) -> str:
    """Return the step or folder of a module."""
    return name.split(".")[1]


def between_parts() -> Counter[tuple[str, str]]:
    """Count the imports from each part of the package in each other part."""
    pairs = ((part(a), part(b)) for a in MODULES.keys() - {"wwwlib"} for b in imports(a))
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def picture() -> str:
    """Draw the imports as a matrix in SVG: a row imports the columns with a dot.

    Rows and columns have the order in which steps may import, so that every dot of the core lies
    left of the diagonal. The area of a dot grows with the number of imports.
    """
    names, count = [*CORE[:-1], *FOLDERS], between_parts()
    size = len(names) * _CELL
    drawn = []
    for i, name in enumerate(names):
        row, column = _TOP + (i + 0.5) * _CELL, _LEFT + (i + 0.5) * _CELL
        turned = f"translate({column + 4} {_TOP - 8}) rotate(-60)"
        drawn += [
            f'<text x="{_LEFT - 8}" y="{row + 4}" text-anchor="end">{escape(name)}</text>',
            f'<text transform="{turned}">{escape(name)}</text>',
            f'<rect class="self" x="{column - 9}" y="{row - 9}" width="18" height="18"/>',
            f'<path d="M{_LEFT} {row + 11}h{size}M{column + 11} {_TOP}v{size}"/>',
        ]
        for j, other in enumerate(names):
            if n := count[name, other]:
                place = f'cx="{_LEFT + (j + 0.5) * _CELL}" cy="{row}" r="{min(9, 3 + n**0.5):.1f}"'
                title = f"{escape(name)} imports {escape(other)}: {n}"
                drawn.append(f"<circle {place}><title>{title}</title></circle>")
    words = ", ".join(sorted({f"{a} imports {b}" for a, b in count}))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing imports" role="img" '
        f'viewBox="0 0 {_LEFT + size + 60} {_TOP + size + 4}" aria-labelledby="imports">'
        f'<title id="imports">Imports between the parts of the package: {escape(words)}</title>'
        f"{''.join(drawn)}</svg>"
    )
