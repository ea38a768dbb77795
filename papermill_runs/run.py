"""Run the notebooks of a profile, a process each, and keep a record of what came out.

    python papermill_runs/run.py world                  all notebooks of the profile
    python papermill_runs/run.py world --only 01        some of them
    python papermill_runs/run.py world --set k=20       with another parameter
    python papermill_runs/run.py world --jobs 4         four notebooks at once
    torchrun --nproc-per-node 8 papermill_runs/run.py paper    on eight GPUs
    python papermill_runs/run.py paper --ray            each notebook a task of a Ray cluster
    python papermill_runs/run.py world --publish        then keep the copies for readers
    python papermill_runs/run.py --list                 what there is
    python papermill_runs/run.py --check paper          is all there that it needs? nothing runs
    python papermill_runs/run.py --fetch paper          download what is missing and may be had
    python papermill_runs/run.py --rehearse paper       each step, with random weights, in small
    python papermill_runs/run.py --report paper         a finished run beside the paper's tables

A notebook that fails does not stop the others. What is done already, from the same sources,
parameters and input files, is not done again; input behind a URL may have changed unseen, so that a
notebook with such input runs each time. The exit code is 0 if all went well, 1 if a notebook
failed or what it needs is missing, 2 if what was asked for cannot be done, and 130 after an
interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import inquiries
import profiles
import publish
import rehearse
import side_by_side
import stand_ins
from filelock import FileLock, Timeout
from profiles import House, Job, Profile

HOUSE = House(Path(__file__).resolve().parents[1])
PROCESS = ".process-"  # how folders begin that last as long as a notebook's process


def main(argv: list[str] | None = None, house: House = HOUSE) -> int:
    """Do what the command line says and return the exit code."""
    asked = _arguments(argv)
    try:
        if asked.list or not asked.profile:
            return inquiries.catalogue(house)
        profile = profiles.load(house, asked.profile)
        given = profiles.settings(house, asked.set)
        if asked.rehearse:
            house, profile = rehearse.begin(house, profile, asked.out)
        jobs = profiles.plan(house, profile, asked.only, given)
        if asked.jobs < 1:
            raise ValueError(f"--jobs {asked.jobs} runs nothing; give 1 or more.")
        folder = house.run(asked.out or profile.name)
        if asked.publish and (asked.only or asked.set):
            raise ValueError("--publish takes a profile as it stands: leave --only and --set out.")
        if asked.check or asked.fetch or asked.report:
            return inquiries.answer(asked, house, profile, jobs, folder)
        if side_by_side.helper():
            return _help(house, profile, jobs, folder)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            if house.stage:
                stand_ins.furnish(profile, house)
            at_once = len(jobs) if asked.ray else asked.jobs  # a cluster lets them wait itself
            code = run(house, profile, jobs, folder, asked.force, at_once, _launcher(asked))
            if asked.publish:
                print(publish.publish(house, jobs, folder))
            return code
    except Timeout:
        print(f"Another run writes to {folder}; wait for it or give --out.", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
    return 2


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("profile", nargs="?", help="which profile; --list shows them")
    parser.add_argument(
        "--only", action="append", default=[], metavar="01", help="name of a run, or its beginning"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another parameter"
    )
    parser.add_argument("--out", metavar="NAME", help="folder in papermill_runs/runs")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at once")
    parser.add_argument("--ray", action="store_true", help="run on the cluster of RAY_ADDRESS")
    parser.add_argument("--force", action="store_true", help="run again what is done already")
    parser.add_argument("--check", action="store_true", help="look for all that it needs")
    parser.add_argument("--fetch", action="store_true", help="download what is missing")
    parser.add_argument("--rehearse", action="store_true", help="run it with random weights")
    parser.add_argument("--report", action="store_true", help="compare a run with the paper")
    parser.add_argument(
        "--publish", action="store_true", help="then keep the copies in papermill_runs/reference"
    )
    parser.add_argument("--list", action="store_true", help="list the profiles")
    return parser.parse_args(argv)


def _launcher(asked: argparse.Namespace) -> side_by_side.Launcher:
    """Return what starts a notebook's process: on this machine, or on a Ray cluster."""
    if not asked.ray:
        return side_by_side.launch
    try:
        import on_ray  # an extra, not for everybody
    except ImportError as error:
        raise ValueError(f"--ray needs the extra `ray` ({error}): pip install '.[ray]'.") from error
    return on_ray.connect()


def run(
    house: House,
    profile: Profile,
    jobs: list[Job],
    folder: Path,
    force: bool = False,
    at_once: int = 1,
    launch: side_by_side.Launcher = side_by_side.launch,
) -> int:
    """Run jobs into a folder, one after the other or some at once, and return the exit code."""
    from manifest import Manifest  # imports torch, for which a typing error should not wait

    for left in folder.glob(f"{PROCESS}*"):  # by a runner that was killed
        _remove(left)
    manifest = Manifest.open(folder / "manifest.json")
    manifest.begin(house, profile)
    manifest.content |= {"rehearsal": rehearse.BANNER} if house.stage else {}
    started = time.monotonic()
    step = partial(_step, house, folder, manifest, force, launch)
    try:
        if at_once == 1:
            for number, job in enumerate(jobs, start=1):
                print(f"[{number}/{len(jobs)}] {job.name} ... ", end="", flush=True)
                print(step(job), flush=True)
        else:
            for number, (job, said) in enumerate(side_by_side.each(step, jobs, at_once), start=1):
                print(f"[{number}/{len(jobs)}] {job.name} ... {said}", flush=True)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here")
        return 130
    return _close(profile, jobs, folder, manifest, time.monotonic() - started)


def _step(house: House, folder: Path, manifest, force: bool, launch, job: Job) -> str:
    """Run one notebook, unless that is done already, and say how it went."""
    from witness import behind_url  # imports torch

    far = behind_url(job.effective)
    if not force and not far and manifest.done(house, job):
        manifest.update(job.name, resumed=True)
        return "already done"
    began = time.monotonic()
    try:
        reason = _attempt(house, job, folder, manifest, launch)
    except KeyboardInterrupt:
        manifest.update(job.name, state="interrupted", error="interrupted by the user")
        raise
    seconds = time.monotonic() - began
    manifest.update(job.name, seconds=round(seconds, 1))
    if reason:
        return f"FAILED after {seconds:.0f} s: {reason}"
    again = f"; runs each time, for what lies at {far} may change unseen" if far else ""
    return f"done in {seconds:.0f} s{again}"


def _help(house: House, profile: Profile, jobs: list[Job], folder: Path) -> int:
    """Run the same notebooks beside the process that keeps the record, to take over shards."""
    from manifest import Manifest

    records = Manifest.open(folder / "manifest.json").content["notebooks"]
    left = [job for job in jobs if records.get(job.name, {}).get("state") != "done"]
    aside = house.run(f"{folder.name}-helper-{side_by_side.helper()}")
    aside.mkdir(parents=True, exist_ok=True)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            run(house, profile, left, aside, force=True)
    finally:
        _remove(aside)
    return 0  # how it went is for the first process to say


def _attempt(house: House, job: Job, folder: Path, manifest, launch) -> str | None:
    """Run one notebook and record how it ended; return the reason if it failed."""
    from manifest import files, results

    _set_aside(folder, job.name, keep=manifest.record(job.name)["state"] == "done")
    manifest.start(house, job)
    draft = folder / f"{job.name}.part.ipynb"
    reason = _execute(house, job, folder, draft, launch)
    marked = rehearse.stamp(draft, folder / job.name) if house.stage else {}
    try:
        reported = {} if reason else results(folder / job.name)
    except ValueError as error:
        reason = str(error)
    if reason:
        if draft.exists():
            os.replace(draft, folder / f"{job.name}.failed.ipynb")
        manifest.update(job.name, state="failed", error=reason)
        return reason
    os.replace(draft, folder / f"{job.name}.ipynb")
    manifest.update(job.name, state="done", files=files(folder, job.name), **reported, **marked)
    for leftover in (".log", ".previous", ".previous.ipynb"):
        _remove(folder / f"{job.name}{leftover}")
    return None


def _set_aside(folder: Path, name: str, keep: bool) -> None:
    """Clear the place of a notebook; what was done well before stays as ``.previous`` till then."""
    for leftover in (".part.ipynb", ".failed.ipynb", ".log"):
        _remove(folder / f"{name}{leftover}")
    for old, previous in ((name, f"{name}.previous"), (f"{name}.ipynb", f"{name}.previous.ipynb")):
        if keep and (folder / old).exists():
            _remove(folder / previous)
            os.replace(folder / old, folder / previous)
        _remove(folder / old)
    (folder / name).mkdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _execute(house: House, job: Job, folder: Path, draft: Path, launch) -> str | None:
    """Execute a notebook in a process of its own, in its own folder; None if it went well."""
    here, log = house.notebooks, folder / f"{job.name}.log"
    # Beside the results, where every machine of a cluster sees it.
    with tempfile.TemporaryDirectory(dir=folder, prefix=PROCESS) as temporary:
        place = Path(temporary)
        out = os.path.relpath(folder / job.name, here)  # relative: executed copies are published
        work = {
            "source": job.source.name,
            "output": os.path.relpath(draft, here),
            "parameters": {**job.given, profiles.RESERVED: out},
            "reason": str(place / "reason.txt"),
        }
        (place / "job.json").write_text(json.dumps(work), encoding="utf-8")
        program = Path(__file__).with_name("execute.py")
        command = [sys.executable, str(program), str(place / "job.json")]
        code = launch(command, here, _environment(house, place), log)
        if code == 0:
            return None
        reason = place / "reason.txt"
        ended = f"its process ended with code {code}; see {log}"
        return reason.read_text(encoding="utf-8") if reason.exists() else ended


def _environment(house: House, place: Path) -> dict[str, str]:
    """Return an environment in which "python3" is this very interpreter, set up by nobody else."""
    spec = place / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    described = {"argv": launch, "display_name": "Python 3 (ipykernel)", "language": "python"}
    spec.write_text(json.dumps(described), encoding="utf-8")
    others = os.environ.get("JUPYTER_PATH")
    return os.environ | {
        "JUPYTER_PATH": os.pathsep.join([str(place), *([others] if others else [])]),
        "WWW_STORE": str(house.store),
        **side_by_side.environment(),
        **({"WWW_REHEARSAL": rehearse.BANNER} if house.stage else {}),
    }


def _close(profile: Profile, jobs: list[Job], folder: Path, manifest, seconds: float) -> int:
    """Say how it ended and where to look; return the exit code."""
    manifest.content |= {"seconds": round(seconds, 1)}
    manifest.save()
    failed = [job.name for job in jobs if manifest.record(job.name)["state"] != "done"]
    done = len(jobs) - len(failed)
    shown = Path(os.path.relpath(folder))
    print(f"\nProfile {profile.name!r}: {done} of {len(jobs)} notebooks done in {seconds:.0f} s.")
    for name in failed:
        copy = folder / f"{name}.failed.ipynb"
        where = f"; see {shown / copy.name}" if copy.exists() else ""
        print(f"  failed    {name}: {manifest.record(name)['error']}{where}")
    print(f"  read      {shown}/*.ipynb")
    print(f"  figures   {shown}/<notebook>/, with results.json")
    print(f"  record    {shown / 'manifest.json'}")
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is an interruption
    sys.exit(main())
