"""The README is run as it stands: what it promises in code must work."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_code_runs_and_answers(capsys):
    """Breaks when a name, a signature or a default that the README shows has changed."""
    scope = {}
    for block in re.findall(r"^```python\n(.*?)^```", README, re.M | re.S):
        exec(compile(block, "README.md", "exec"), scope)
    answer = scope["answer"]
    assert answer.to_sentence() in capsys.readouterr().out
    assert -1 <= answer.r <= 1
    assert scope["mine"].layers()[-1] == "logits"


def test_three_answers_take_ten_lines():
    block = re.search(r"^```python\n(.*?)^```", README, re.M | re.S).group(1)
    assert len(list(filter(str.strip, block.splitlines()))) <= 10


def test_every_file_it_points_to_is_there():
    for name in re.findall(r"`((?:notebooks|data|papermill_runs|wwwlib|tests)/[\w./-]*)`", README):
        if not name.startswith(("papermill_runs/runs", "papermill_runs/store")):
            assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / name).exists(), name


def test_every_notebook_is_in_its_table():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert f"`{path.stem}`" in README, path.stem
