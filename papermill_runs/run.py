"""Run the notebooks of a profile, each in a process of its own, and record what came out.

    python papermill_runs/run.py world              all notebooks of the profile
    python papermill_runs/run.py world --only 01    some of them
    python papermill_runs/run.py world --set ks=20  with another parameter
    python papermill_runs/run.py world --jobs 4     four notebooks at once
    python papermill_runs/run.py world --publish    then keep the copies for readers
    python papermill_runs/run.py --list             the profiles and their notebooks
    python papermill_runs/run.py --check paper      check all that it needs; nothing runs
    python papermill_runs/run.py --fetch paper      download what is missing and downloadable
    python papermill_runs/run.py --dry-run paper    every step with random weights and few images
    python papermill_runs/run.py --report paper     compare a finished run with the paper's tables
    python papermill_runs/run.py paper --ray        each notebook is a task of a Ray cluster
    torchrun --nproc-per-node 8 papermill_runs/run.py paper    eight processes share each notebook

A value after --set is read by the type that the notebook declares: text as it stands, a list as
a,b or [a, b]; relative paths start at the working directory. By default two notebooks run at once,
longest first, where there are two cores, and a GPU each if they use one.

A notebook that fails does not stop the others. What is done already, from the same sources,
parameters and input files, does not run again; input behind a URL may have changed unnoticed, so a
notebook with such input runs each time. An interrupted run goes on with the same command. The exit
code is 0 if all went well, 1 if a notebook failed, what it needs is missing, or a value of the
published profile has moved, 2 if the command cannot be carried out, and 130 after an interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import execute
import profiles
import seal
from execute import one_line
from filelock import FileLock, Timeout
from parameters import behind_url
from profiles import Job, Profile, Project

# Slow to import, and therefore imported where they are used: check, dry_run, fetch, manifest,
# publish, report, wwwlib.

PROJECT = Project(Path(__file__).resolve().parents[1])
INTERRUPTED = 130  # exit code
FLAGS = {
    "--ray": "run on the cluster of RAY_ADDRESS",
    "--force": "run again what is done already",
    "--check": "check all that it needs",
    "--fetch": "download what is missing",
    "--dry-run": "run it with random weights",
    "--report": "compare a run with the paper",
    "--publish": "then keep the copies in papermill_runs/reference",
    "--list": "list the profiles",
}


def main(argv: list[str] | None = None, project: Project = PROJECT) -> int:
    """Carry out a command line and return the exit code."""
    options = _arguments(argv)
    try:
        if options.list or not options.profile:
            return catalogue(project)
        profile = profiles.load(project, options.profile)
        given = profiles.settings(options.set)
        if options.dry_run:
            import dry_run

            project, profile = dry_run.begin(project, profile, options.out)
        jobs = profiles.plan(project, profile, options.only, given)
        if options.jobs is not None and options.jobs < 1:
            raise ValueError(f"--jobs {options.jobs} runs nothing; give 1 or more.")
        if options.publish and (options.only or options.set):
            raise ValueError("--publish takes a whole profile: leave --only and --set out.")
        run = Run(project, profile, jobs, project.run(options.out or profile.name))
        if options.report:
            import report

            print(report.write(run.folder), end="")
            return 0
        return run.check(options.fetch) if options.check or options.fetch else run.start(options)
    except Timeout:
        print(f"Another run writes to {run.folder}; wait for it or give --out.", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(one_line(str(error), 2000), file=sys.stderr)
    return 2


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("profile", nargs="?", help="which profile; --list shows them")
    add("--only", action="append", default=[], metavar="01", help="name of a run, or its beginning")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="another parameter")
    add("--out", metavar="NAME", help="folder in papermill_runs/runs")
    add("--jobs", type=int, metavar="N", help="notebooks at once; default: 2, or 1 on one core")
    for flag, text in FLAGS.items():
        add(flag, action="store_true", help=text)
    return parser.parse_args(argv)


def catalogue(project: Project) -> int:
    """List the profiles with their notebooks."""
    for name in profiles.names(project):
        profile = profiles.load(project, name)
        minutes, each = sum(profile.minutes.values()), " of notebooks, two at once"
        time = f" (about {minutes:g} min{each * (len(profile.minutes) > 1)})" if minutes else ""
        print(f"{name}{time}: {profile.description}")
        print(*(f"    {notebook}\n" for notebook in profile.notebooks), sep="", end="")
    return 0


def _at_once(jobs: list[Job]) -> int:
    """Return how many notebooks run at once by default."""
    on_cpu = all(job.effective.get("device", "cpu") == "cpu" for job in jobs)
    return min(2, execute.cores() if on_cpu else len(execute.gpus()) or 1)


@dataclass
class Run:
    """A run into one folder, with its manifest and the function that starts processes."""

    project: Project
    profile: Profile
    jobs: list[Job]
    folder: Path
    manifest: Any = None
    launch: execute.Launcher = execute.launch
    group: str = ""  # a name that all ranks of torchrun share

    def check(self, fetching: bool) -> int:
        """Check or fetch what the profile needs and return the exit code."""
        import check

        data = self.project.data
        needs = check.load(self.profile.needs, data)
        if fetching:
            import fetch

            return int(fetch.fetch(needs) > 0)
        names = ", ".join(job.name for job in self.jobs)
        print(f"Profile {self.profile.name!r} is valid: {names}.")
        findings = check.compare([check.examine(need) for need in needs], data)
        print(check.table(findings, data))
        lost = profiles.missing(self.project, self.jobs)
        lost = [one for one in lost if str(data) not in one]  # the others are needs
        print(*(f"  MISSING  {one_line(one)}\n" for one in lost), sep="", end="")
        return int(any(one.fault for one in findings) or bool(lost))

    def start(self, options: argparse.Namespace) -> int:
        """Run the jobs, as the only runner of this folder, and return the exit code."""
        from manifest import Manifest

        from wwwlib.distributed import ranks

        if self.project.stand_ins and ranks().rank == 0:
            import dry_run

            dry_run.furnish(self.profile, self.project)
        if not self.project.stand_ins and (lost := profiles.missing(self.project, self.jobs)):
            print("Input files are missing, so nothing runs:", file=sys.stderr)
            print(*map(one_line, lost), sep="\n", file=sys.stderr)
            if self.profile.needs:
                print(f"--check {self.profile.name} shows where they come from.", file=sys.stderr)
            return 1
        if ranks().rank:
            return self.beside()
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock", timeout=0):
            self.launch = execute.connect() if options.ray else execute.launch
            self.manifest = Manifest.open(self.folder).begin(self.project, self.profile)
            done = [job for job in self.jobs if self.manifest.done(self.project, job)]
            kept = [job for job in done if not (options.force or behind_url(job.effective))]
            pending = [job for job in self.jobs if job not in kept]
            self.group, names = uuid.uuid4().hex, [job.name for job in pending]
            if ranks().size > 1:
                ranks().broadcast(json.dumps([self.group, names]).encode())
            at_once = len(self.jobs) if options.ray else options.jobs or _at_once(self.jobs)
            code = self.all(pending, at_once if ranks().size == 1 else 1)
            if self.project.stand_ins and code != INTERRUPTED:
                print(self.estimate(options.only))
            if options.publish and code != INTERRUPTED:
                import publish

                print(publish.publish(self.project, self.profile.name, self.jobs, self.folder))
            elif code == 0 and not options.set:
                lines = seal.compare(self.project, self.profile.name, self.jobs, self.folder)
                print(*lines, sep="\n")
                code = int(len(lines) > 1)
        return code

    def estimate(self, only: list[str]) -> str:
        """Return what the profile of a dry run would cost on one GPU."""
        import check
        import estimate

        real = Project(self.project.root)
        profile = profiles.load(real, self.profile.name.removesuffix("-dry-run"))
        jobs = profiles.plan(real, profile, only, {})
        took = sum(self.manifest.record(job.name).get("seconds", 0) for job in self.jobs)
        return estimate.text(jobs, [n.size for n in check.load(profile.needs, real.data)], took)

    def beside(self) -> int:
        """Execute the notebooks of torchrun's rank 0 as well, to share their passes over images."""
        from manifest import Manifest

        from wwwlib.distributed import ranks

        self.group, names = json.loads(ranks().broadcast(b""))
        self.folder = self.project.run(f"{self.folder.name}-rank-{os.environ['RANK']}")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                self.manifest = Manifest.open(self.folder).begin(self.project, self.profile)
                self.jobs = [job for job in self.jobs if job.name in names]
                self.all(self.jobs, 1)
        finally:
            _remove(self.folder)
        return 0  # rank 0 reports failures

    def all(self, pending: list[Job], at_once: int) -> int:
        """Run the pending jobs, so many at once, and return the exit code."""
        started, minutes, total = time.monotonic(), self.profile.minutes, len(self.jobs)
        done = [job for job in self.jobs if job not in pending]
        for number, job in enumerate(done, start=1):
            self.manifest.record(job.name)["resumed"] = True
            print(f"[{number}/{total}] {job.name} ... already done", flush=True)
        if at_once > 1:
            pending = sorted(pending, key=lambda job: -minutes.get(job.name, 0.0))
        try:
            outcomes = execute.each(self.one, pending, at_once)
            for number, (job, outcome) in enumerate(outcomes, start=1 + len(done)):
                print(f"[{number}/{total}] {job.name} ... {one_line(outcome, 800)}", flush=True)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here")
            return INTERRUPTED
        return self.close(time.monotonic() - started)

    def one(self, job: Job) -> str:
        """Run one notebook and return how it went."""
        print(f"{job.name} started\n", end="", flush=True)
        began = time.monotonic()
        try:
            reason = self.attempt(job)
            self.manifest.update(job.name, seconds=round(time.monotonic() - began, 1))
        except KeyboardInterrupt:
            self.manifest.update(job.name, state="interrupted", error="interrupted by the user")
            raise
        except Exception as error:  # such as a full disk: the others may still fit
            reason = one_line(f"it cannot be run or recorded ({type(error).__name__}: {error})")
            with contextlib.suppress(OSError, ValueError):  # it is reported anyway
                self.manifest.update(job.name, state="failed", error=reason)
        seconds = time.monotonic() - began
        if reason:
            return f"FAILED after {seconds:.0f} s: {reason}"
        url = behind_url(job.effective)
        again = f"; runs each time, because {url} may change unnoticed" if url else ""
        return f"done in {seconds:.0f} s{again}"

    def attempt(self, job: Job) -> str | None:
        """Run one notebook and record how it ended; return the reason if it failed."""
        from manifest import files, results

        folder, name, entries = self.folder, job.name, {}
        _set_aside(folder, name, keep=self.manifest.record(name).get("state") == "done")
        self.manifest.start(self.project, job)
        draft = folder / f"{name}.part.ipynb"
        reason = self.execute(job, draft)
        try:
            entries = {} if reason else results(folder / name)
        except ValueError as error:
            reason = str(error)
        if self.project.stand_ins:
            import dry_run

            entries |= dry_run.stamp(draft, folder / name)
        if reason:
            reason = one_line(reason)
            if draft.exists():
                os.replace(draft, folder / f"{name}.failed.ipynb")
            self.manifest.update(name, state="failed", error=reason)
            return reason
        os.replace(draft, folder / f"{name}.ipynb")
        self.manifest.update(name, state="done", files=files(folder, name), **entries)
        for leftover in (".log", ".previous", ".previous.ipynb"):
            _remove(folder / f"{name}{leftover}")
        return None

    def execute(self, job: Job, draft: Path) -> str | None:
        """Execute a notebook in its own process and folder; None if it went well."""
        here, log = self.project.notebooks, self.folder / f"{job.name}.log"
        environment = {"WWW_STORE": str(self.project.store)}
        if self.project.stand_ins:
            environment["WWW_DRY_RUN"] = self.profile.description
        if self.group:
            environment["WWW_GROUP"] = f"{self.group}-{job.name}"
        out = os.path.relpath(self.folder / job.name, here)  # executed copies are published
        called = [job.source.name, os.path.relpath(draft, here), {**job.given, "out": out}]
        command = [sys.executable, execute.__file__, json.dumps(called)]
        code = self.launch(command, here, os.environ | execute.environment() | environment, log)
        if code == 0:
            return None
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        reason = said[-1] if code == 1 and said else f"its process ended with code {code}: {log}"
        for value, typed in job.typed.items():
            reason = reason.replace(value, typed) if value.startswith("../") else reason
        return reason

    def close(self, seconds: float) -> int:
        """Print how the run ended and where its files are; return the exit code."""
        self.manifest.content |= {"seconds": round(seconds, 1)}
        with contextlib.suppress(OSError, ValueError):
            self.manifest.save()
        _remove(self.manifest.reserve)
        records = {job.name: self.manifest.record(job.name) for job in self.jobs}
        failed = {name: one for name, one in records.items() if one["state"] != "done"}
        done, folder = len(records) - len(failed), Path(os.path.relpath(self.folder))
        print(f"\nProfile {self.profile.name!r}: {done} of {len(records)} done in {seconds:.0f} s.")
        for name, record in failed.items():
            copy = self.folder / f"{name}.failed.ipynb"
            where = f"; see {folder / copy.name}" if copy.exists() else ""
            print(f"  failed    {name}: {record.get('error', 'not run')}{where}")
        print(f"  notebooks {folder}/*.ipynb\n  figures   {folder}/<notebook>/, with results.json")
        print(f"  record    {folder / 'manifest.json'}")
        return 1 if failed else 0


def _set_aside(folder: Path, name: str, keep: bool) -> None:
    """Clear the place of a notebook; a finished result stays as ``.previous`` until replaced."""
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


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM is an interruption
    sys.exit(main())
