"""Notebooks side by side: all of them run, each is recorded, and an interruption ends them all."""

import os
import signal
import subprocess
import sys

import pytest
import run
import side_by_side
from test_run import ROOT, WRITE, _alive, _until, house, notebook, profile, record

__all__ = ["house"]  # the fixture: a small house with one notebook

NAMES = ["01_good", "02_good", "03_good"]
MEET = """\
import pathlib, time
(pathlib.Path("here") / pathlib.Path(out).name).touch()
while len(list(pathlib.Path("here").iterdir())) < 3:
    time.sleep(0.05)"""


@pytest.fixture
def crowd(house):
    """Three notebooks, each of which waits until the other two have begun."""
    (house.notebooks / "here").mkdir()
    for name in NAMES:
        notebook(house, name, MEET, WRITE)
    profile(house, "notebooks:\n" + "".join(f"  {name}: {{}}\n" for name in NAMES))
    return house


@pytest.fixture
def start(crowd):
    """Start the runner in a process of its own; it dies with the test."""
    runners = []

    def starter(*words, **variables):
        # As in a terminal: what a shell starts in the background inherits that SIGINT is ignored.
        code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        code += "import sys, run; h = run.House(run.Path(sys.argv[1]));"
        code += "sys.exit(run.main(sys.argv[2:], h))"
        paths = os.pathsep.join([str(ROOT / "papermill_runs"), str(ROOT)])
        runners.append(
            subprocess.Popen(
                [sys.executable, "-c", code, str(crowd.root), "tiny", *words],
                env={**os.environ, "PYTHONPATH": paths, **variables},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return runners[-1]

    yield starter
    for runner in runners:
        runner.kill()
        runner.wait()


def test_all_run_at_once_and_each_is_recorded(crowd, capsys):
    """Breaks if one waits for another: then none of them would ever end."""
    assert run.main(["tiny", "--jobs", "3"], crowd) == 0
    said = capsys.readouterr().out
    assert [record(crowd)[name]["state"] for name in NAMES] == ["done"] * 3
    assert all(f"{name} ... done in" in said for name in NAMES)
    assert run.main(["tiny", "--jobs", "3"], crowd) == 0
    assert capsys.readouterr().out.count("already done") == 3


def test_an_interruption_ends_all_and_says_how_to_go_on(crowd, start):
    """Breaks if a notebook goes on after its runner, or is called done."""
    for name in NAMES:
        notebook(
            crowd, name, "import os, pathlib, time",
            "(pathlib.Path('here') / str(os.getpid())).touch(); time.sleep(600)",
        )  # fmt: skip
    runner, here = start("--jobs", "3"), crowd.notebooks / "here"
    _until(lambda: len(list(here.iterdir())) == 3, 120)
    runner.send_signal(signal.SIGINT)
    assert runner.wait(60) == 130
    assert "the same command goes on from here" in runner.stdout.read()
    assert [record(crowd)[name]["state"] for name in NAMES] == ["interrupted"] * 3
    for pid in here.iterdir():
        _until(lambda pid=pid: not _alive(int(pid.name)))


def test_processes_of_torchrun_run_the_same_and_one_keeps_the_record(crowd, start):
    """Breaks if two processes write to one folder, or if the second one leaves its own behind."""
    for name in NAMES:  # each copy waits for its twin in the other process
        meet = MEET.replace(".name).touch", ".parent.name).touch").replace("< 3", "< 2")
        notebook(crowd, name, meet.replace('"here"', f'"here{name}"'), WRITE)
        (crowd.notebooks / f"here{name}").mkdir()
    two = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    runners = [start(RANK=str(i), LOCAL_RANK=str(i), **two) for i in range(2)]
    assert [runner.wait(240) for runner in runners] == [0, 0]
    assert [record(crowd)[name]["state"] for name in NAMES] == ["done"] * 3
    assert [folder.name for folder in crowd.runs.iterdir()] == ["tiny"]
    assert runners[1].stdout.read() == ""


def test_no_jobs_at_all_is_refused(crowd, capsys):
    assert run.main(["tiny", "--jobs", "0"], crowd) == 2
    assert "--jobs 0 runs nothing; give 1 or more" in capsys.readouterr().err


def test_each_place_has_a_gpu_and_a_share_of_the_cores(monkeypatch):
    """Breaks if notebooks side by side all take the first GPU, or every core."""
    for name in ("LOCAL_RANK", "OMP_NUM_THREADS", "WWW_SHARD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    monkeypatch.setattr(side_by_side, "_cores", lambda: 8)
    assert side_by_side.environment() == {}  # alone, nothing changes
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert side_by_side.environment() == {"CUDA_VISIBLE_DEVICES": "7"}
    monkeypatch.delenv("LOCAL_RANK")
    told = dict(side_by_side.each(lambda job: str(side_by_side.environment()), ["a"], 3))
    assert "'OMP_NUM_THREADS': '2'" in told["a"] and "'CUDA_VISIBLE_DEVICES': '4'" in told["a"]
    assert "'WWW_SHARD': '2048'" in told["a"]


def test_without_ray_its_option_says_what_to_install(crowd, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not there
    monkeypatch.delitem(sys.modules, "on_ray", raising=False)
    assert run.main(["tiny", "--ray"], crowd) == 2
    assert "--ray needs the extra `ray`" in capsys.readouterr().err


@pytest.mark.slow
def test_every_notebook_is_a_task_of_a_ray_cluster(house, monkeypatch):
    """Breaks if a task's failure is lost, or the record is kept where nobody looks."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for Ray's processes
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    whose = "import os; assert os.getppid() != 1; print(os.environ['RAY_JOB_ID'])"
    notebook(house, "02_good", whose, WRITE)
    notebook(house, "03_bad", "1 / 0", WRITE)
    profile(house, "notebooks: {01_good: {k: 5}, 02_good: {}, 03_bad: {}}")
    try:
        assert run.main(["tiny", "--ray"], house) == 1
    finally:
        ray.shutdown()
    made = record(house)
    assert [made[name]["state"] for name in sorted(made)] == ["done", "done", "failed"]
    assert "ZeroDivisionError" in made["03_bad"]["error"]
