"""Several notebooks at once: each is recorded, an interruption ends all; torchrun and Ray."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import execute
import pytest
import run
from test_run import ROOT, WRITE, _alive, _until, notebook, profile, project, record

__all__ = ["project"]  # the fixture: a small project with one notebook

NAMES = ["01_good", "02_good", "03_good"]
MEET = """\
import pathlib, time
(pathlib.Path("here") / pathlib.Path(out).name).touch()
while len(list(pathlib.Path("here").iterdir())) < 3:
    time.sleep(0.05)"""


@pytest.fixture
def crowd(project):
    """Three notebooks, each of which waits until the other two have begun."""
    (project.notebooks / "here").mkdir()
    for name in NAMES:
        notebook(project, name, MEET, WRITE)
    profile(project, "notebooks:\n" + "".join(f"  {name}: {{}}\n" for name in NAMES))
    return project


@pytest.fixture
def start(crowd):
    """Start the runner in a process of its own; it dies with the test."""
    runners = []

    def starter(*words, **variables):
        # As in a terminal: what a shell starts in the background inherits that SIGINT is ignored.
        code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        code += "import sys, run; h = run.Project(run.Path(sys.argv[1]));"
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
    _until(lambda: len(list(here.iterdir())) == 3)
    runner.send_signal(signal.SIGINT)
    assert runner.wait(60) == 130
    assert "the same command goes on from here" in runner.stdout.read()
    assert [record(crowd)[name]["state"] for name in NAMES] == ["interrupted"] * 3
    for pid in here.iterdir():
        _until(lambda pid=pid: not _alive(int(pid.name)))


RUNNER = """\
import pathlib, sys, run
sys.exit(run.main(sys.argv[2:], run.Project(pathlib.Path(sys.argv[1]))))"""
SHARE = """\
import os, pathlib, time
here = pathlib.Path("here") / pathlib.Path(out).name
here.mkdir(exist_ok=True)
(here / os.environ["RANK"]).write_text(os.environ["WWW_GROUP"])
while len(list(here.iterdir())) < 2:
    time.sleep(0.05)"""


def test_a_second_interruption_starts_no_further_notebook(monkeypatch):
    """It comes while the first one ends what runs, before what waits is cancelled."""
    begun, pools, end = [], [], execute.ThreadPoolExecutor.shutdown

    def step(job):
        begun.append(job)
        if job != "a":
            execute._STOP.wait(30)
        return job

    def interrupted(pool, **_):
        pools.append(pool)
        raise KeyboardInterrupt

    monkeypatch.setattr(execute.ThreadPoolExecutor, "shutdown", interrupted)
    running = execute.each(step, ["a", "b", "c"], 1)
    assert next(running) == ("a", "a")
    _until(lambda: "b" in begun)
    with pytest.raises(KeyboardInterrupt):
        running.close()
    end(pools[0])  # as at the end of the process: waits for what is left
    assert begun == ["a", "b"]


def test_all_ranks_of_torchrun_execute_each_notebook_and_rank_0_keeps_the_record(crowd, tmp_path):
    """Breaks if two processes write to one folder, run other notebooks, or have other groups."""
    for name in NAMES:  # each copy waits for the one on the other rank
        notebook(crowd, name, SHARE, WRITE)
    notebook(crowd, NAMES[1], WRITE)
    assert run.main(["tiny", "--only", "02"], crowd) == 0
    (tmp_path / "runner.py").write_text(RUNNER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = os.pathsep.join([str(ROOT / "papermill_runs"), str(ROOT)])
    done = subprocess.run(
        [*command, tmp_path / "runner.py", crowd.root, "tiny"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [record(crowd)[name]["state"] for name in NAMES] == ["done"] * 3
    assert record(crowd)[NAMES[1]]["resumed"], "what is done is run by no rank"
    assert [folder.name for folder in crowd.runs.iterdir()] == ["tiny"]
    assert done.stdout.count("done in") == 3 - 1 + 1, "the last one is the summary"
    here = crowd.notebooks / "here"
    groups = [{path.read_text() for path in (here / n).iterdir()} for n in (NAMES[0], NAMES[2])]
    assert [len(one) for one in groups] == [1, 1] and groups[0] != groups[1]


def test_no_jobs_at_all_is_refused(crowd, capsys):
    assert run.main(["tiny", "--jobs", "0"], crowd) == 2
    assert "--jobs 0 runs nothing; give 1 or more" in capsys.readouterr().err


def test_each_place_has_a_gpu_and_a_share_of_the_cores(monkeypatch):
    """Breaks if several notebooks at once all take the first GPU, or every core."""
    for name in ("LOCAL_RANK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    monkeypatch.setattr(execute, "cores", lambda: 8)
    assert execute.environment() == {}  # alone, nothing changes
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert execute.environment() == {"CUDA_VISIBLE_DEVICES": "7"}
    monkeypatch.delenv("LOCAL_RANK")
    assert dict(execute.each(lambda job: execute.environment(), ["a"], 3)) == {
        "a": {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "4"}
    }


def test_two_run_at_once_by_default_and_the_longest_first(crowd, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    seen = []
    monkeypatch.setattr(execute, "cores", lambda: 8)
    each = lambda step, jobs, at_once: seen.append(([j.name for j in jobs], at_once)) or []  # noqa: E731
    monkeypatch.setattr(execute, "each", each)
    books = "notebooks: {01_good: {}, 02_good: {}, 03_good: {}}"
    profile(crowd, f"minutes: {{02_good: 2, 03_good: 3.5}}\n{books}")
    run.main(["tiny"], crowd)
    run.main(["tiny", "--jobs", "1"], crowd)
    assert seen == [(["03_good", "02_good", "01_good"], 2), (NAMES, 1)]
    monkeypatch.setattr(execute, "cores", lambda: 1)
    run.main(["tiny"], crowd)
    assert seen[-1] == (NAMES, 1)


def test_a_notebook_on_a_gpu_shares_it_with_no_other_by_default(crowd, monkeypatch):
    monkeypatch.setattr(execute, "cores", lambda: 8)
    job = run.Job("a", None, {}, {"device": "cuda"})
    for devices, expected in (("0", 1), ("0,1,2", 2), ("", 1)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
        assert run._at_once([job]) == expected


def test_without_ray_its_option_names_the_extra(crowd, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not there
    assert run.main(["tiny", "--ray"], crowd) == 2
    assert "--ray needs the extra `ray`" in capsys.readouterr().err


SERVE = """\
import sys
from pathlib import Path
from wwwlib.explorer.serve import serve
serve(Path(sys.argv[1]), int(sys.argv[2]))"""


def test_a_terminated_explorer_ends_its_server_and_its_kernels(project):
    """Breaks if a service manager's SIGTERM leaves kernels of a gigabyte each behind."""
    pid = project.root / "pid"
    write = f"import os, pathlib; _ = pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))"
    notebook(project, "07_small", write)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    source = str(project.notebooks / "07_small.ipynb")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, source, port],
        env={**os.environ, "PYTHONPATH": str(ROOT / "papermill_runs")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address = server.stdout.readline().split(": ")[1].strip()

        def answers():
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=60) as page:
                return page.status == 200

        _until(answers)
        _until(lambda: pid.exists() and pid.read_text())
        server.terminate()
        assert server.wait(60) == 0
        _until(lambda: not _alive(int(pid.read_text())), 30)
    finally:
        server.kill()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m\n  and\tmore", "red and more"),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\link", "xlink"),
        ("bell\x07 nul\0 back\b \x9b31m \u202e \ud800", "bell nul back 31m"),
        ("long " * 300, ("long " * 120)[:600]),
    ],
)
def test_text_of_an_exception_is_one_line_without_control_characters(text, expected):
    assert execute.one_line(text).strip() == expected.strip()


@pytest.mark.slow
def test_every_notebook_is_a_task_of_a_ray_cluster(project, monkeypatch):
    """Breaks if a task's failure is lost, or the record is kept where nobody looks."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for Ray's processes
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    whose = "import os; assert os.getppid() != 1; print(os.environ['RAY_JOB_ID'])"
    notebook(project, "02_good", whose, WRITE)
    notebook(project, "03_bad", "1 / 0", WRITE)
    profile(project, "notebooks: {01_good: {k: 5}, 02_good: {}, 03_bad: {}}")
    try:
        assert run.main(["tiny", "--ray"], project) == 1
    finally:
        ray.shutdown()
    made = record(project)
    assert [made[name]["state"] for name in sorted(made)] == ["done", "done", "failed"]
    assert "ZeroDivisionError" in made["03_bad"]["error"]
