"""The runner: what it rejects before anything starts, and what it keeps when things go wrong.

Each test builds a small project in a temporary folder, with notebooks of two or three cells.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import manifest
import nbformat.v4
import profiles
import publish
import pytest
import run
import seal
from manifest import Manifest
from parameters import declared, parse
from profiles import Project

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


def notebook(project, name, *sources, parameters=PARAMETERS):
    """Write a notebook with a parameters cell and the given code cells."""
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(
        cells=[first, *map(nbformat.v4.new_code_cell, sources)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(book, project.notebooks / f"{name}.ipynb")


def profile(project, text, name="tiny"):
    (project.profiles / f"{name}.yaml").write_text(text)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one notebook, one profile, and braces in its path."""
    monkeypatch.delenv("WWW_STORE", raising=False)
    project = Project(tmp_path / "a {project}")
    project.notebooks.mkdir(parents=True)
    project.profiles.mkdir(parents=True)
    notebook(project, "01_good", WRITE)
    profile(project, "notebooks:\n  01_good: {k: 5}\n")
    return project


def record(project, name="tiny"):
    return json.loads((project.runs / name / "manifest.json").read_text())["notebooks"]


REFUSED = {
    "unknown profile": ("", ["tidy"], "tiny"),
    "unknown notebook": ("notebooks: {01_goat: {}}", ["tiny"], "01_good"),
    "unknown parameter": ("notebooks: {01_good: {alpah: 1}}", ["tiny"], "alpha"),
    "unknown on the command line": ("", ["tiny", "--set", "laiers=[a]"], "layers"),
    "near name on the command line": ("", ["tiny", "--set", "ks=20"], "there is k"),
    "wrong type on the command line": ("", ["tiny", "--set", "k=many"], "must be int"),
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
    "text that YAML 1.1 calls 750": ("notebooks: {01_good: {k: 12:30}}", ["tiny"], "'12:30'"),
    "a key twice": ("notebooks: {01_good: {k: 1, k: 2}}", ["tiny"], "the key 'k' stands twice"),
    "an alias in itself": (
        "common: &a {table: [*a]}\nnotebooks: {01_good: {}}",
        ["tiny"],
        "an alias contains itself",
    ),
    "one for a list": ("notebooks: {01_good: {layers: a}}", ["tiny"], "list[str]; write ['a']"),
    "a parameter set twice": ("", ["tiny", "--set", "k=1", "--set", "k=2"], "'k' twice"),
    "nothing to run": ("", ["tiny", "--only", "02"], "01_good"),
    "all that only the user knows": (
        "required: [weights, seed]\nnotebooks: {01_good: {}}",
        ["tiny"],
        "--set weights=... --set seed=...",
    ),
}


@pytest.mark.parametrize("text, argv, hint", REFUSED.values(), ids=REFUSED)
def test_refuses_in_one_sentence_before_anything_runs(project, capsys, text, argv, hint):
    if text:
        profile(project, text)
    assert run.main(argv, project) == 2
    said = capsys.readouterr().err
    assert hint in said and said.count("\n") == 1
    assert not project.runs.exists()


SET = {  # text after --set, the parameter's type, and its value
    "a number": ("7", "int", 7),
    "a number below zero": ("-7", "int", -7),
    "no octal number": ("010", "int", 10),
    "a float": ("1e-3", "float", 0.001),
    "a float without point": ("3", "float", 3.0),
    "true": ("true", "bool", True),
    "None": ("null", "str | None", None),
    "text or None": ("a", "str | None", "a"),
    "a number or None": ("5", "int | None", 5),
    "a number as text": ("010", "str", "010"),
    "a time": ("12:30", "str", "12:30"),
    "a comment sign": ("/data/a #1", "str", "/data/a #1"),
    "quotes": ('"a"', "str", '"a"'),
    "one of a list": ("20", "list[int]", [20]),
    "a list": ("20,30", "list[int]", [20, 30]),
    "a list in brackets": ("[a, 'b', \"c,d\"]", "list[str]", ["a", "b", "c,d"]),
    "an empty list": ("[]", "list[str]", []),
    "None in a list": ("a,null", "list[str | None]", ["a", None]),
    "a dict": ("{a: 1.5}", "dict[str, float]", {"a": 1.5}),
    "no octal number in a dict": ("{a: 010}", "dict[str, int]", {"a": 10}),
    "a time in a dict": ("{a: 12:30, b: 010}", "dict[str, str]", {"a": "12:30", "b": "010"}),
    "a list in a dict": ("{a: [b, 010]}", "dict[str, list[str]]", {"a": ["b", "010"]}),
    "numbers as keys": ("{1: null}", "dict[int, str | None]", {1: None}),
}


@pytest.mark.parametrize("text, kind, value", SET.values(), ids=SET)
def test_a_value_of_the_command_line_is_read_by_the_declared_type(text, kind, value):
    found = parse(text, kind, "it")
    assert found == value and type(found) is type(value)


def test_the_examples_of_the_help_work():
    """Breaks if the help tells to set a parameter that the notebooks do not declare."""
    lines = [one.partition("  ")[0].split() for one in run.__doc__.split("\n    ")[1:]]
    for words in [line[line.index("papermill_runs/run.py") + 1 :] for line in lines]:
        asked = run._arguments(words)
        if asked.profile:
            found = profiles.load(run.PROJECT, asked.profile)
            given = profiles.settings(asked.set)
            jobs = profiles.plan(run.PROJECT, found, asked.only, given)
            assert (
                all(job.effective.get("ks", [20]) == [20] for job in jobs if "ks" in given) and jobs
            )


def test_a_profile_may_change_a_key_of_what_it_merges(project):
    books = "{01_good@a: &a {k: 1, seed: 2}, 01_good@b: {<<: *a, k: 3}}"
    profile(project, f"notebooks: {books}")
    assert profiles.load(project, "tiny").notebooks["01_good@b"] == {"k": 3, "seed": 2}


@pytest.mark.parametrize(
    "text, kind", [("many", "int"), ("yes", "bool"), ("nan", "float"), ("a", "list[int]"),
                   ("1.5", "int"), ("[a", "dict[str, float]"), ("1e400", "float | None"),
                   ("{a: 1, a: 2}", "dict[str, int]"), ("{a: [b]}", "dict[str, str]"),
                   ("a: b", "list[int]"), ("a", "dict[str, str]"), ("{a: {}}", "dict[str, int]"),
                   ("&a {b: *a}", "dict[str, float]")],
)  # fmt: skip
def test_a_value_of_another_type_is_one_sentence(text, kind):
    with pytest.raises(ValueError, match=r"^it is "):
        parse(text, kind, "it")


def test_refuses_a_run_folder_that_is_a_link_to_elsewhere(project, tmp_path, capsys):
    project.runs.mkdir()
    (project.runs / "tiny").symlink_to(tmp_path)
    assert run.main(["tiny"], project) == 2
    assert "plain name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["k = 3  # no type", "k: int = 3", "k: int = 1 + len('a')  # code", "k: int = 'a'  # wrong",
     "k: set = 3  # unknown type", "import os  # code"],
)  # fmt: skip
def test_a_parameters_cell_holds_described_literals_only(project, line):
    notebook(project, "02_bad", parameters=line)
    with pytest.raises(ValueError, match=r"02_bad|annotation"):
        declared(project.notebooks / "02_bad.ipynb")


PATHS = {  # a value after --set, and the kind and the path in it
    "./w.safetensors": ("", "w.safetensors"),
    "../w.safetensors": ("", "../w.safetensors"),
    "photos/cats": ("", "photos/cats"),
    "words.txt": ("", "words.txt"),
    "photos": ("", "photos"),
    "./a: b #1": ("", "a: b #1"),
    "broden:words.txt": ("broden:", "words.txt"),
    "file:photos": ("file:", "photos"),
    "file:absent": ("file:", "absent"),
    "absent.pth": ("", "absent.pth"),
    "absent.py:load": ("", "absent.py:load"),
    "words.txt:load": ("", "words.txt:load"),
    "open_clip:local-dir:./photos": ("open_clip:local-dir:", "photos"),
}


@pytest.mark.parametrize("value", PATHS)
def test_a_relative_path_on_the_command_line_starts_at_the_working_directory(
    project, tmp_path, monkeypatch, value
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "words.txt").touch()
    given = profiles.settings([f"weights={value}"])
    job = profiles.plan(project, profiles.load(project, "tiny"), [], given)[0]
    kind, path = PATHS[value]
    assert job.given["weights"] == kind + os.path.relpath(tmp_path / path, project.notebooks)


@pytest.mark.parametrize(
    "value", ["s3://bucket/photos", "torchvision/resnet50", "absent", "random"]
)
def test_what_is_no_path_stays_as_it_is(project, tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    given = profiles.settings([f"weights={value}", "layers=photos"])
    (tmp_path / "photos").mkdir()
    job = profiles.plan(project, profiles.load(project, "tiny"), [], given)[0]
    assert job.given["weights"] == value and job.given["layers"] == ["photos"]


def test_every_missing_input_is_listed_before_anything_runs(project, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    more = PARAMETERS + "\nprobe_root: str | None = None  # its folder"
    for name in ("02_more", "03_more"):
        notebook(project, name, WRITE, parameters=more)
    books = (
        "01_good: {weights: ../absent.pth}, 02_more: {layers: ['broden:/absent/w']}, 03_more: {}"
    )
    profile(project, f"notebooks: {{{books}}}")
    argv = ["tiny", "--set", "probe_root=./photos", "--set", "weights=file:words"]
    argv += ["--only", "02", "--only", "03"]
    assert run.main(["tiny", "--only", "01"], project) == 1
    assert "weights: ../absent.pth (for 01_good)" in capsys.readouterr().err
    assert run.main(argv, project) == 1 and run.main(["--check", *argv], project) == 1
    said = capsys.readouterr()
    for text in ("layers: broden:/absent/w (for 02_more)",
                 "probe_root: ./photos (for 02_more, 03_more)",
                 "weights: file:words (for 02_more, 03_more)"):  # fmt: skip
        assert text in said.err and text in said.out
    assert not project.runs.exists()


def test_a_failing_notebook_quotes_paths_as_they_were_typed(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    notebook(project, "01_good", "raise OSError(f'{weights!r} holds no images')")
    assert run.main(["tiny", "--set", "weights=./photos"], project) == 1
    assert "'./photos' holds no images" in record(project)["01_good"]["error"]


def pretend(run, job, draft):
    """Stand in for the execution of a notebook that goes well."""
    draft.write_text("executed")
    (run.folder / job.name / "results.json").write_text("{}")


def counted(monkeypatch):
    """Let every notebook go well without running it; returns a list that grows by each."""
    ran = []

    def execute(run, job, draft):
        ran.append(job.name)
        pretend(run, job, draft)

    monkeypatch.setattr(run.Run, "execute", execute)
    return ran


def test_check_and_list_run_nothing(project, capsys):
    assert run.main(["--check", "tiny"], project) == 0
    assert run.main(["--list"], project) == 0
    assert "01_good" in capsys.readouterr().out and not project.runs.exists()


def test_a_whole_name_chooses_that_notebook_alone(project):
    """Breaks if a variant cannot be run without those whose names begin with its own."""
    profile(project, "notebooks: {01_good@v: {}, 01_good@v-more: {}, 01_good@w: {}}")
    found = profiles.load(project, "tiny")
    chosen = lambda *only: [job.name for job in profiles.plan(project, found, [*only], {})]  # noqa: E731
    assert chosen("01_good@v") == ["01_good@v"]
    assert chosen("01_good@v-") == ["01_good@v-more"]
    assert chosen("01_good@v", "01_good@w") == ["01_good@v", "01_good@w"]
    assert len(chosen("01_good")) == len(chosen()) == 3


def test_one_failure_among_three_stops_nobody_and_what_is_done_stays_done(
    project, capsys, monkeypatch
):
    """Breaks if a failure ends the run, hides in its exit code, or makes good work run again."""
    notebook(project, "02_bad", "1 / 0", WRITE)
    notebook(project, "03_killed", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", WRITE)
    names = ["01_good", "02_bad", "03_killed"]
    books = "".join(f"  {name}: {{}}\n" for name in [*names[1:], names[0]])
    profile(project, f"common: {{k: 7}}\nnotebooks:\n{books}")
    assert run.main(["tiny"], project) == 1
    out, made, folder = capsys.readouterr().out, record(project), project.runs / "tiny"
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
    assert str(project.root) not in (folder / "01_good.ipynb").read_text()

    monkeypatch.setattr(run.Run, "execute", pretend)
    assert run.main(["tiny", "--only", "01", "--only", "02"], project) == 0
    again = record(project)
    assert again["01_good"] == {**made["01_good"], "resumed": True}
    assert again["02_bad"]["state"] == "done" and again["03_killed"]["state"] == "failed"
    assert not (folder / "02_bad.failed.ipynb").exists()


def test_runs_again_when_anything_that_decides_the_result_has_changed(project, monkeypatch):
    """Breaks if a stale result passes for done, or a damaged one, or if sameness is not seen."""
    ran = counted(monkeypatch)
    runs = lambda *argv: (run.main(["tiny", *argv], project), len(ran))  # noqa: E731
    assert runs() == (0, 1)
    assert runs() == (0, 1)
    assert runs("--force") == (0, 2)
    assert runs("--set", "k=6") == (0, 3)
    (project.runs / "tiny/01_good/results.json").write_text('{"scalars": {}}')
    assert runs("--set", "k=6") == (0, 4)
    (project.root / "wwwlib").mkdir()
    (project.root / "wwwlib/store.py").write_text("x = 1")
    assert runs("--set", "k=6") == (0, 5)
    photos = project.root / "photos"
    photos.mkdir()
    profile(project, "notebooks: {01_good: {k: 6, weights: ../photos}}")
    assert runs() == (0, 6)
    (photos / "new.jpg").write_bytes(b"x")
    assert runs() == (0, 7)
    assert runs() == (0, 7)
    (project.runs / "tiny/manifest.json").write_text('{"notebooks": {"01_good"')
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
def test_an_input_is_seen_to_change_however_a_parameter_names_it(project, monkeypatch, name, value):
    """Breaks if a run is called done although a list of words or an encoder was edited since."""
    for folder in ("folder", "links"):
        (project.root / folder).mkdir()
    (project.root / "links" / "inner").symlink_to(project.root / "folder")
    (project.root / "links" / "nowhere").symlink_to(project.root / "nothing")
    inputs = [project.root / "words.txt", project.root / "folder" / "words.txt"]
    for path in inputs:
        path.write_text("before")
    table = PARAMETERS + "\ntable: dict[str, list[str]] = {}  # nested"
    notebook(project, "01_good", WRITE, parameters=table)
    text = json.dumps(value).replace("{root}", str(project.root))
    profile(project, f"notebooks: {{01_good: {{{name}: {text}}}}}")
    ran = counted(monkeypatch)
    for expected in (1, 1):
        assert run.main(["tiny"], project) == 0 and len(ran) == expected
    for path in inputs:
        path.write_text("afterwards")
    for expected in (2, 2):
        assert run.main(["tiny"], project) == 0 and len(ran) == expected


def test_what_lies_behind_a_url_is_never_called_done(project, monkeypatch, capsys):
    """Breaks if images that nobody can see from here are taken to be those of the last run."""
    profile(project, "notebooks: {01_good: {layers: ['s3://bucket/val']}}")
    ran = counted(monkeypatch)
    for expected in (1, 2):
        assert run.main(["tiny"], project) == 0 and len(ran) == expected
    assert "s3://bucket/val may change unnoticed" in capsys.readouterr().out


def test_a_failure_sets_earlier_good_work_aside_and_does_not_destroy_it(project, monkeypatch):
    monkeypatch.setattr(run.Run, "execute", pretend)
    assert run.main(["tiny"], project) == 0
    monkeypatch.setattr(run.Run, "execute", lambda *_: "it broke")
    for _ in range(2):
        assert run.main(["tiny", "--force"], project) == 1
        assert (project.runs / "tiny/01_good.previous.ipynb").read_text() == "executed"
        assert (project.runs / "tiny/01_good.previous/results.json").exists()
        assert not (project.runs / "tiny/01_good.ipynb").exists()
    monkeypatch.setattr(run.Run, "execute", pretend)
    assert run.main(["tiny"], project) == 0
    assert not list((project.runs / "tiny").glob("*previous*"))


BAD_RESULTS = [
    '{"scalars": {"r": NaN}}', '{"scalars": {"r": 1e400}}', "[1]", '{"scalars": 1}', "{", "folder",
    None,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_RESULTS)
def test_results_that_are_absent_or_that_no_manifest_can_hold_are_a_failure(
    project, monkeypatch, text
):
    def write(run, job, draft):
        draft.write_text("executed")
        if text == "folder":
            (run.folder / job.name / "results.json").mkdir()
        elif text is not None:
            (run.folder / job.name / "results.json").write_text(text)

    monkeypatch.setattr(run.Run, "execute", write)
    assert run.main(["tiny"], project) == 1
    assert "results.json" in record(project)["01_good"]["error"]


def test_a_manifest_that_cannot_be_written_fails_that_notebook_alone(project, monkeypatch, capsys):
    """Breaks if a full disk, or a value that JSON lacks, ends the run in a traceback."""
    notebook(project, "02_good", WRITE)
    profile(project, "notebooks: {01_good: {}, 02_good: {}}")
    counted(monkeypatch)
    update = Manifest.update

    def full(manifest, name, **entries):
        if name == "01_good" and entries.get("state") == "done":
            raise OSError(28, "No space left on device")
        update(manifest, name, **entries)

    monkeypatch.setattr(Manifest, "update", full)
    assert run.main(["tiny"], project) == 1
    assert {n: r["state"] for n, r in record(project).items()} == {
        "01_good": "failed", "02_good": "done"
    }  # fmt: skip
    assert "No space left on device" in capsys.readouterr().out


def test_a_full_disk_is_recorded(project, monkeypatch):
    """Breaks if the record of the notebook that filled the disk stays at "running"."""
    write, reserve = manifest.write_json, project.runs / "tiny" / ".reserve"

    def full(path, content):
        if content["notebooks"]["01_good"]["state"] == "failed" and reserve.exists():
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(run.Run, "execute", lambda *_: "OSError: No space left on device")
    monkeypatch.setattr(manifest, "write_json", full)
    assert run.main(["tiny"], project) == 1
    assert record(project)["01_good"]["state"] == "failed" and not reserve.exists()


def test_a_failure_of_the_runner_itself_is_that_of_the_notebook_alone(project, monkeypatch):
    """Breaks if a machine lost from a cluster, or a full disk, ends the whole run."""
    notebook(project, "02_good", WRITE)
    profile(project, "notebooks: {01_good: {}, 02_good: {}}")
    counted(monkeypatch)
    start = Manifest.start

    def lost(manifest, project, job):
        start(manifest, project, job)
        if job.name == "01_good":
            raise RuntimeError("the cluster lost it")

    monkeypatch.setattr(Manifest, "start", lost)
    assert run.main(["tiny"], project) == 1
    made = record(project)
    assert {name: one["state"] for name, one in made.items()} == {
        "01_good": "failed", "02_good": "done"
    }  # fmt: skip
    assert "RuntimeError: the cluster lost it" in made["01_good"]["error"]


def test_an_exception_prints_no_control_characters(project, monkeypatch, capsys):
    monkeypatch.setattr(run.Run, "execute", lambda *_: "cell 2 raised E: \x1b[31mred\x1b]0;x\x07")
    assert run.main(["tiny"], project) == 1
    out = capsys.readouterr().out
    assert "raised E: red" in out and "\x1b" not in out + record(project)["01_good"]["error"]


def test_the_runner_killed_takes_its_notebook_along_and_the_next_run_recovers(project, monkeypatch):
    """Breaks if an orphan goes on writing, or if a state of "running" is believed later."""
    notebook(
        project,
        "01_good",
        "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid()))",
        "time.sleep(60)",
    )
    code = "import sys, run; run.main(['tiny'], run.Project(run.Path(sys.argv[1])))"
    paths = os.pathsep.join([str(ROOT / "papermill_runs"), str(ROOT)])
    runner = subprocess.Popen(
        [sys.executable, "-c", code, str(project.root)], env={**os.environ, "PYTHONPATH": paths}
    )
    pid = project.notebooks / "pid"
    _until(pid.exists)
    _until(lambda: pid.read_text())
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    assert record(project)["01_good"]["state"] == "running"
    _until(lambda: not _alive(int(pid.read_text())))
    monkeypatch.setattr(run.Run, "execute", pretend)
    assert run.main(["tiny"], project) == 0
    assert record(project)["01_good"]["state"] == "done"
    assert not list((project.runs / "tiny").glob(".process-*")), "what the dead runner left stays"


def test_a_manifest_never_calls_running_what_nobody_runs(project, tmp_path):
    manifest = Manifest(tmp_path / "m.json", {"notebooks": {"01_good": {"state": "running"}}})
    manifest.begin(project, profiles.load(project, "tiny"))
    assert manifest.record("01_good")["state"] == "interrupted"


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # one that nobody has waited for yet is dead all the same
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def _until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


# Publishing ---------------------------------------------------------------------------------


def figure_in(folder, name="01_good", figure="fig1.png"):
    (folder.root / "README.md").write_text(f"![x](papermill_runs/reference/figures/{figure})\n")


def test_publish_runs_and_keeps_copies_and_the_figures_of_the_readme(project, capsys):
    """Breaks if copies differ from what ran, keep the runner's notes, or miss a figure."""
    figure_in(project)
    bar = "import sys\nprint(f'images: {50}%|###   | 1/2', file=sys.stderr)\nprint('kept')"
    wait = "import warnings\nwarnings.warn('Waiting for another process or thread')"
    page = "open(f'{out}/explorer.html', 'w').write('a page')"
    notebook(project, "01_good", WRITE, bar, wait, page)
    assert run.main(["tiny", "--publish"], project) == 0
    assert "Published 1 notebooks" in capsys.readouterr().out
    assert sorted(p.name for p in project.reference.iterdir()) == [
        "01_good.html",
        "01_good.ipynb",
        "expected.json",
        "figures",
    ]
    assert (project.reference / "figures/fig1.png").read_bytes() == b"figure"
    assert (project.reference / "01_good.html").read_text() == "a page"
    text = (project.reference / "01_good.ipynb").read_text()
    assert '"papermill"' not in text and "50%" not in text and "kept" in text
    assert "UserWarning: Waiting" not in text  # the copy keeps the code, and no message of waiting
    assert str(project.root) not in text


@pytest.mark.parametrize("change", ["source", "failed", "large", "figure"])
def test_publish_refuses_in_one_sentence_and_leaves_what_was_there(project, monkeypatch, change):
    """Breaks if an old, failed or huge run overwrites good copies."""
    figure_in(project)
    failing = change == "failed"

    def execute(run, job, draft):
        pretend(run, job, draft)
        shutil.copyfile(job.source, draft)
        (run.folder / job.name / "fig1.png").write_bytes(b"figure")
        return "it broke" if failing and "1 / 0" in draft.read_text() else None

    monkeypatch.setattr(run.Run, "execute", execute)
    assert run.main(["tiny", "--publish"], project) == 0
    before = (project.reference / "01_good.ipynb").read_bytes()
    profile, folder = profiles.load(project, "tiny"), project.run("tiny")
    if change in ("source", "failed"):
        notebook(project, "01_good", WRITE, "1 / 0" if failing else "'changed'")
    if failing:
        assert run.main(["tiny", "--publish"], project) == 2
    if change == "large":
        monkeypatch.setattr(publish, "LIMIT", 10)
    if change == "figure":
        figure_in(project, figure="nothing.png")
    said = {"source": "other sources", "failed": "is failed", "large": "MB", "figure": "nothing"}
    with pytest.raises(ValueError, match=said[change]):
        publish.publish(project, profile.name, profiles.plan(project, profile, [], {}), folder)
    assert (project.reference / "01_good.ipynb").read_bytes() == before


@pytest.mark.parametrize(
    "change, code, said",
    [
        ({}, 0, "Reproduced: 2 of 2"),
        ({"b": 0.504}, 0, "Reproduced: 2 of 2"),
        ({"b": 0.506}, 1, "01_good: b: 0.5 published, 0.506 now"),
        ({"a": 4}, 1, "01_good: a: 3 published, 4 now"),
        ({"c": 0.1}, 1, "c: nan published, 0.1 now"),
        ({"b": None}, 1, "b: 0.5 published, nan now"),
    ],
)
def test_a_run_is_compared_with_the_published_values(
    project, capsys, monkeypatch, change, code, said
):
    """Breaks if a moved, new or missing value passes, or one within tolerance does not."""
    scalars = {"a": 3, "b": 0.5}

    def execute(run, job, draft):
        shutil.copyfile(job.source, draft)
        (run.folder / job.name / "fig1.png").write_bytes(b"")
        results = {"scalars": {k: v for k, v in scalars.items() if v is not None}}
        (run.folder / job.name / "results.json").write_text(json.dumps(results))

    monkeypatch.setattr(run.Run, "execute", execute)
    figure_in(project)
    assert run.main(["tiny", "--publish"], project) == 0
    capsys.readouterr()
    scalars |= change
    assert run.main(["tiny", "--force"], project) == code
    assert said in capsys.readouterr().out
    assert run.main(["tiny", "--set", "k=4"], project) == 0, "other parameters have other values"


def test_a_notebook_without_results_is_not_reproduced(tmp_path):
    jobs = [SimpleNamespace(name="00_a"), SimpleNamespace(name="01_b")]
    published = {"00_a": {"x": 0.2}, "01_b": {"y": 0.0002, "z": 3}}
    (tmp_path / seal.FILE).write_text(seal.sealed("world", published))
    project = SimpleNamespace(reference=tmp_path)

    def compared(**values):
        for name, own in values.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "results.json").write_text(json.dumps({"scalars": own}))
        return seal.compare(project, "world", jobs, tmp_path)

    first, *rest = compared(**{"00_a": {"x": 0.204}})
    assert "1 of 3" in first and rest == ["  missing   01_b: all of its 2 values"]
    first, *rest = compared(**{"01_b": {"y": -0.0004, "z": 3}})
    assert "2 of 3" in first and len(rest) == 1 and "01_b: y" in rest[0], "a sign has changed"


def test_publish_takes_a_profile_as_it_stands(project, capsys):
    assert run.main(["tiny", "--publish", "--set", "k=4"], project) == 2
    assert "--publish takes a whole profile" in capsys.readouterr().err
