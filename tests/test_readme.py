"""What the README points to is there; its code is run in tests/test_wheel.py."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_short_way_takes_ten_lines():
    first = re.search(r"^```python\n(.*?)^```", README, re.M | re.S)[1]
    assert len(list(filter(str.strip, first.splitlines()))) <= 10


def test_every_file_it_points_to_is_there():
    for name in re.findall(r"`((?:notebooks|data|papermill_runs|wwwlib|tests)/[\w./-]*)`", README):
        if not name.startswith(("papermill_runs/runs", "papermill_runs/store")):
            assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / name).exists(), name


def test_every_notebook_is_in_it_and_in_the_table_of_the_paper():
    table = (ROOT / "docs" / "howto" / "paper.md").read_text()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert f"`{path.stem}`" in README, path.stem
        assert f"| `{path.stem}` |" in table, path.stem
