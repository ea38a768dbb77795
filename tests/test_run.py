"""The runner: what it refuses before anything starts, and what it keeps when things go wrong.

Each test builds a small house in a temporary folder, with notebooks of two or three cells.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat.v4
import profiles
import publish
import pytest
import run
from manifest import Manifest
from parameters import declared
from profiles import House

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = """\
out: str = "../somewhere"  # folder to write to
k: int = 3  # exemplars a neuron
alpha: float = 0.95  # share of the best score
layers: list[str] = ["logits"]  # which layers
weights: str | None = None  # file of weights
seed: int = 0  # where chance begins"""
WRITE = """\
import json, pathlib
folder = pathlib.Path(out)
folder.mkdir(parents=True, exist_ok=True)
(folder / "fig1.png").write_bytes(b"figure")
report = {"scalars": {"k": k, "alpha": alpha}, "data": {"probe": "ab"}, "device": "cpu"}
_ = (folder / "results.json").write_text(json.dumps(report))"""


def notebook(house, name, *sources, parameters=PARAMETERS):
    """Write a notebook with a parameters cell and the given code cells."""
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(
        cells=[first, *map(nbformat.v4.new_code_cell, sources)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(book, house.notebooks / f"{name}.ipynb")


def profile(house, text, name="tiny"):
    (house.profiles / f"{name}.yaml").write_text(text)


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A house with one notebook, one profile, and braces in its path."""
    monkeypatch.delenv("WWW_STORE", raising=False)
    house = House(tmp_path / "a {house}")
    house.notebooks.mkdir(parents=True)
    house.profiles.mkdir(parents=True)
    notebook(house, "01_good", WRITE)
    profile(house, "notebooks:\n  01_good: {k: 5}\n")
    return house


def record(house, name="tiny"):
    return json.loads((house.runs / name / "manifest.json").read_text())["notebooks"]


REFUSED = {
    "unknown profile": ("", ["tidy"], "tiny"),
    "unknown notebook": ("notebooks: {01_goat: {}}", ["tiny"], "01_good"),
    "unknown parameter": ("notebooks: {01_good: {alpah: 1}}", ["tiny"], "alpha"),
    "unknown on the command line": ("", ["tiny", "--set", "laiers=[a]"], "layers"),
    "parameter that is code": (
        'notebooks: {01_good: {\'k = 1; __import__("os").system("touch PWNED") #\': 1}}',
        ["tiny"],
        "not declared",
    ),
    "name that is a number": ("notebooks: {01_good: {1: 1}}", ["tiny"], "not declared"),
    "NaN": ("notebooks: {01_good: {alpha: .nan}}", ["tiny"], "finite"),
    "infinity within a list": ("notebooks: {01_good: {layers: [-.inf]}}", ["tiny"], "finite"),
    "wrong type": ("notebooks: {01_good: {k: many}}", ["tiny"], "must be int"),
    "true is no number": ("notebooks: {01_good: {k: true}}", ["tiny"], "must be int"),
    "wrong type within a list": ("notebooks: {01_good: {layers: [1]}}", ["tiny"], "list[str]"),
    "common parameter that nobody declares": (
        "common: {sed: 1}\nnotebooks: {01_good: {}}",
        ["tiny"],
        "seed",
    ),
    "the runner's own parameter": ("notebooks: {01_good: {out: ../..}}", ["tiny"], "--out"),
    "output path upwards": ("", ["tiny", "--out", "../away"], "plain name"),
    "output path from the root": ("", ["tiny", "--out", "/tmp/away"], "plain name"),
    "output path with braces": ("", ["tiny", "--out", "{k}"], "plain name"),
    "notebook path upwards": ("notebooks: {../01_good: {}}", ["tiny"], "01_good"),
    "entry that no profile has": ("notebook: 1\nnotebooks: {01_good: {}}", ["tiny"], "notebooks"),
    "no YAML": ("notebooks: [", ["tiny"], "YAML"),
    "YAML that would build objects": ("notebooks: !!python/name:os.system", ["tiny"], "YAML"),
    "nothing to run": ("", ["tiny", "--only", "02"], "01_good"),
    "what only the user knows": (
        "required: [weights]\nnotebooks: {01_good: {}}",
        ["tiny"],
        "--set weights",
    ),
}


@pytest.mark.parametrize("text, argv, hint", REFUSED.values(), ids=REFUSED)
def test_refuses_in_one_sentence_before_anything_runs(house, capsys, text, argv, hint):
    if text:
        profile(house, text)
    assert run.main(argv, house) == 2
    said = capsys.readouterr().err
    assert hint in said and said.count("\n") == 1
    assert not house.runs.exists()


def test_refuses_a_run_folder_that_is_a_link_to_elsewhere(house, tmp_path, capsys):
    house.runs.mkdir()
    (house.runs / "tiny").symlink_to(tmp_path)
    assert run.main(["tiny"], house) == 2
    assert "plain name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["k = 3  # no type", "k: int = 3", "k: int = 1 + len('a')  # code", "k: int = 'a'  # wrong",
     "k: set = 3  # unknown type", "import os  # code"],
)  # fmt: skip
def test_a_parameters_cell_holds_described_literals_only(house, line):
    notebook(house, "02_bad", parameters=line)
    with pytest.raises(ValueError, match=r"02_bad|annotation"):
        declared(house.notebooks / "02_bad.ipynb")


def test_path_on_the_command_line_is_seen_from_where_its_writer_stands(
    house, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    weights = run.profiles.settings(house, ["weights=./w.safetensors"])["weights"]
    assert (house.notebooks / weights).resolve() == tmp_path.resolve() / "w.safetensors"


def pretend(house, job, folder, draft, launch):
    """Stand in for the execution of a notebook that goes well."""
    draft.write_text("executed")
    (folder / job.name / "results.json").write_text("{}")


def counted(monkeypatch):
    """Let every notebook go well without running it; returns a list that grows by each."""
    ran = []

    def execute(house, job, *rest):
        ran.append(job.name)
        pretend(house, job, *rest)

    monkeypatch.setattr(run, "_execute", execute)
    return ran


def test_check_and_list_run_nothing(house, capsys):
    assert run.main(["--check", "tiny"], house) == 0
    assert run.main(["--list"], house) == 0
    assert "01_good" in capsys.readouterr().out and not house.runs.exists()


def test_a_whole_name_chooses_that_notebook_alone(house):
    """Breaks if a variant cannot be run without those whose names begin with its own."""
    profile(house, "notebooks: {01_good@v: {}, 01_good@v-more: {}, 01_good@w: {}}")
    found = profiles.load(house, "tiny")
    chosen = lambda *only: [job.name for job in profiles.plan(house, found, [*only], {})]  # noqa: E731
    assert chosen("01_good@v") == ["01_good@v"]
    assert chosen("01_good@v-") == ["01_good@v-more"]
    assert chosen("01_good@v", "01_good@w") == ["01_good@v", "01_good@w"]
    assert len(chosen("01_good")) == len(chosen()) == 3


def test_one_failure_among_three_stops_nobody_and_what_is_done_stays_done(
    house, capsys, monkeypatch
):
    """Breaks if a failure ends the run, hides in its exit code, or makes good work run again."""
    notebook(house, "02_bad", "1 / 0", WRITE)
    notebook(house, "03_killed", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", WRITE)
    names = ["01_good", "02_bad", "03_killed"]
    books = "".join(f"  {name}: {{}}\n" for name in [*names[1:], names[0]])
    profile(house, f"common: {{k: 7}}\nnotebooks:\n{books}")
    assert run.main(["tiny"], house) == 1
    out, made, folder = capsys.readouterr().out, record(house), house.runs / "tiny"
    assert [made[name]["state"] for name in names] == ["done", "failed", "failed"]
    assert "ZeroDivisionError" in made["02_bad"]["error"] and "ZeroDivisionError" in out
    assert "kernel died" in made["03_killed"]["error"]
    for name in names[1:]:
        assert (folder / f"{name}.failed.ipynb").exists()
        assert not (folder / f"{name}.ipynb").exists()
    assert made["01_good"]["scalars"] == {"k": 7, "alpha": 0.95}
    assert made["01_good"]["seeds"] == {"seed": 0}
    assert made["01_good"]["data"] == {"probe": "ab"}
    assert {*made["01_good"]["files"]} == {
        "01_good.ipynb", "01_good/fig1.png", "01_good/results.json"
    }  # fmt: skip
    assert str(house.root) not in (folder / "01_good.ipynb").read_text()

    monkeypatch.setattr(run, "_execute", pretend)
    assert run.main(["tiny", "--only", "01", "--only", "02"], house) == 0
    again = record(house)
    assert again["01_good"] == {**made["01_good"], "resumed": True}
    assert again["02_bad"]["state"] == "done" and again["03_killed"]["state"] == "failed"
    assert not (folder / "02_bad.failed.ipynb").exists()


def test_runs_again_when_anything_that_decides_the_result_has_changed(house, monkeypatch):
    """Breaks if a stale result passes for done, or a damaged one, or if sameness is not seen."""
    ran = counted(monkeypatch)
    runs = lambda *argv: (run.main(["tiny", *argv], house), len(ran))  # noqa: E731
    assert runs() == (0, 1)
    assert runs() == (0, 1)
    assert runs("--force") == (0, 2)
    assert runs("--set", "k=6") == (0, 3)
    (house.runs / "tiny/01_good/results.json").write_text('{"scalars": {}}')
    assert runs("--set", "k=6") == (0, 4)
    (house.root / "wwwlib").mkdir()
    (house.root / "wwwlib/store.py").write_text("x = 1")
    assert runs("--set", "k=6") == (0, 5)
    photos = house.root / "photos"
    photos.mkdir()
    profile(house, "notebooks: {01_good: {k: 6, weights: ../photos}}")
    assert runs() == (0, 6)
    (photos / "new.jpg").write_bytes(b"x")
    assert runs() == (0, 7)
    assert runs() == (0, 7)
    (house.runs / "tiny/manifest.json").write_text('{"notebooks": {"01_good"')
    with pytest.warns(UserWarning, match="damaged"):
        assert runs() == (0, 8)


NAMED = {
    "in a list": ("layers", ["photos", "../words.txt"]),
    "as a concept set": ("weights", "broden:../words.txt"),
    "as a list of concept sets": ("layers", ["imagenet", "file:{root}/words.txt"]),
    "as an encoder's file": ("weights", "../words.txt:load"),
    "as an encoder's folder": ("weights", "open_clip:local-dir:{root}/folder"),
    "as the truth": ("weights", "places365:{root}/folder/words.txt"),
    "in a dict": ("table", {"of": ["imagenet", "{root}/words.txt"]}),
    "behind links": ("weights", "../links"),
}


@pytest.mark.parametrize("name, value", NAMED.values(), ids=NAMED)
def test_an_input_is_seen_to_change_however_a_parameter_names_it(house, monkeypatch, name, value):
    """Breaks if a run is called done although a list of words or an encoder was edited since."""
    for folder in ("folder", "links"):
        (house.root / folder).mkdir()
    (house.root / "links" / "inner").symlink_to(house.root / "folder")
    (house.root / "links" / "nowhere").symlink_to(house.root / "nothing")
    inputs = [house.root / "words.txt", house.root / "folder" / "words.txt"]
    for path in inputs:
        path.write_text("before")
    table = PARAMETERS + "\ntable: dict[str, list[str]] = {}  # nested"
    notebook(house, "01_good", WRITE, parameters=table)
    text = json.dumps(value).replace("{root}", str(house.root))
    profile(house, f"notebooks: {{01_good: {{{name}: {text}}}}}")
    ran = counted(monkeypatch)
    for expected in (1, 1):
        assert run.main(["tiny"], house) == 0 and len(ran) == expected
    for path in inputs:
        path.write_text("afterwards")
    for expected in (2, 2):
        assert run.main(["tiny"], house) == 0 and len(ran) == expected


def test_what_lies_behind_a_url_is_never_called_done(house, monkeypatch, capsys):
    """Breaks if images that nobody can see from here are taken to be those of the last run."""
    profile(house, "notebooks: {01_good: {layers: ['s3://bucket/val']}}")
    ran = counted(monkeypatch)
    for expected in (1, 2):
        assert run.main(["tiny"], house) == 0 and len(ran) == expected
    assert "what lies at s3://bucket/val may change unseen" in capsys.readouterr().out


def test_a_failure_sets_earlier_good_work_aside_and_does_not_destroy_it(house, monkeypatch):
    monkeypatch.setattr(run, "_execute", pretend)
    assert run.main(["tiny"], house) == 0
    monkeypatch.setattr(run, "_execute", lambda *_: "it broke")
    for _ in range(2):
        assert run.main(["tiny", "--force"], house) == 1
        assert (house.runs / "tiny/01_good.previous.ipynb").read_text() == "executed"
        assert (house.runs / "tiny/01_good.previous/results.json").exists()
        assert not (house.runs / "tiny/01_good.ipynb").exists()
    monkeypatch.setattr(run, "_execute", pretend)
    assert run.main(["tiny"], house) == 0
    assert not list((house.runs / "tiny").glob("*previous*"))


@pytest.mark.parametrize("text", ['{"scalars": {"r": NaN}}', "[1]", '{"scalars": 1}', "{", None])
def test_results_that_are_absent_or_that_no_manifest_can_hold_are_a_failure(
    house, monkeypatch, text
):
    def write(house, job, folder, draft, launch):
        draft.write_text("executed")
        if text is not None:
            (folder / job.name / "results.json").write_text(text)

    monkeypatch.setattr(run, "_execute", write)
    assert run.main(["tiny"], house) == 1
    assert "results.json" in record(house)["01_good"]["error"]


def test_the_runner_killed_takes_its_notebook_along_and_the_next_run_recovers(house, monkeypatch):
    """Breaks if an orphan goes on writing, or if a state of "running" is believed later."""
    notebook(
        house,
        "01_good",
        "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid()))",
        "time.sleep(60)",
    )
    code = "import sys, run; run.main(['tiny'], run.House(run.Path(sys.argv[1])))"
    paths = os.pathsep.join([str(ROOT / "papermill_runs"), str(ROOT)])
    runner = subprocess.Popen(
        [sys.executable, "-c", code, str(house.root)], env={**os.environ, "PYTHONPATH": paths}
    )
    pid = house.notebooks / "pid"
    _until(pid.exists)
    _until(lambda: pid.read_text())
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    assert record(house)["01_good"]["state"] == "running"
    _until(lambda: not _alive(int(pid.read_text())))
    monkeypatch.setattr(run, "_execute", pretend)
    assert run.main(["tiny"], house) == 0
    assert record(house)["01_good"]["state"] == "done"
    assert not list((house.runs / "tiny").glob(".process-*")), "what the dead runner left stays"


def test_a_manifest_never_calls_running_what_nobody_runs(house, tmp_path):
    manifest = Manifest(tmp_path / "m.json", {"notebooks": {"01_good": {"state": "running"}}})
    manifest.begin(house, run.profiles.load(house, "tiny"))
    assert manifest.record("01_good")["state"] == "interrupted"


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # one that nobody has waited for yet is dead all the same
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def _until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


# Publishing ---------------------------------------------------------------------------------


def figure_in(folder, name="01_good", figure="fig1.png"):
    (folder.root / "README.md").write_text(f"![x](papermill_runs/reference/figures/{figure})\n")


def test_publish_runs_and_keeps_copies_and_the_figures_of_the_readme(house, capsys):
    """Breaks if copies differ from what ran, keep the runner's notes, or miss a figure."""
    figure_in(house)
    bar = "import sys\nprint(f'images: {50}%|###   | 1/2', file=sys.stderr)\nprint('kept')"
    notebook(house, "01_good", WRITE, bar)
    assert run.main(["tiny", "--publish"], house) == 0
    assert "Published 1 notebooks" in capsys.readouterr().out
    assert sorted(p.name for p in house.reference.iterdir()) == ["01_good.ipynb", "figures"]
    assert (house.reference / "figures/fig1.png").read_bytes() == b"figure"
    text = (house.reference / "01_good.ipynb").read_text()
    assert '"papermill"' not in text and "50%" not in text and "kept" in text
    assert str(house.root) not in text


@pytest.mark.parametrize("change", ["source", "failed", "large", "figure"])
def test_publish_refuses_in_one_sentence_and_leaves_what_was_there(house, monkeypatch, change):
    """Breaks if an old, failed or huge run overwrites good copies."""
    figure_in(house)
    assert run.main(["tiny", "--publish"], house) == 0
    before = (house.reference / "01_good.ipynb").read_bytes()
    profile, folder = profiles.load(house, "tiny"), house.run("tiny")
    if change in ("source", "failed"):
        notebook(house, "01_good", WRITE, "1 / 0" if change == "failed" else "'changed'")
    if change == "failed":
        assert run.main(["tiny", "--publish"], house) == 2
    if change == "large":
        monkeypatch.setattr(publish, "LIMIT", 10)
    if change == "figure":
        figure_in(house, figure="nothing.png")
    said = {"source": "other sources", "failed": "is failed", "large": "MB", "figure": "nothing"}
    with pytest.raises(ValueError, match=said[change]):
        publish.publish(house, profiles.plan(house, profile, [], {}), folder)
    assert (house.reference / "01_good.ipynb").read_bytes() == before


def test_publish_takes_a_profile_as_it_stands(house, capsys):
    assert run.main(["tiny", "--publish", "--set", "k=4"], house) == 2
    assert "--publish takes a profile as it stands" in capsys.readouterr().err
