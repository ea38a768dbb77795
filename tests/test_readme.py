"""The README is run as it stands: its code works and prints the output that it shows."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


def test_the_code_runs_and_prints_what_is_shown(capsys, tmp_path, monkeypatch):
    """Breaks when a name, a signature or a default that the README shows has changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WWW_STORE", str(tmp_path / "store"))
    scope = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), scope)
    shown = re.search(r"^prints\n\n```\n(.*?)^```", README, re.M | re.S)[1]
    assert " ".join(shown.split()) in " ".join(capsys.readouterr().out.split())
    assert {"names.csv", "explanation.png", "atlas"} <= {path.name for path in tmp_path.iterdir()}
    assert scope["mine"].layers()[-1] == "logits"


def test_the_short_way_takes_ten_lines():
    assert len(list(filter(str.strip, BLOCKS[0].splitlines()))) <= 10


def test_every_file_it_points_to_is_there():
    for name in re.findall(r"`((?:notebooks|data|papermill_runs|wwwlib|tests)/[\w./-]*)`", README):
        if not name.startswith(("papermill_runs/runs", "papermill_runs/store")):
            assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / name).exists(), name


def test_every_notebook_is_in_its_table():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert f"`{path.stem}`" in README, path.stem
