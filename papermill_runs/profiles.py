"""A profile says which notebooks run, with which parameters; a plan is a profile without errors.

Everything is checked before anything runs: notebooks exist, every parameter is declared by the
notebook that is to get it, every value is finite and of the declared type, and input files exist.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from parameters import Parameter, changed, check, declared, parse, read_yaml, texts, unknown

NAME = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)
VARIANT = re.compile(rf"{NAME.pattern}(@{NAME.pattern})?", re.ASCII)  # one notebook, run twice
DATA = "$WWW_DATA"  # in a value: the data folder
RESERVED = "out"  # the folder that a notebook writes to


class Project:
    """Folders of the repository; data and weights that no library keeps; artifacts of all runs.

    `data` is $WWW_DATA, or the stand-ins of a dry run; `store` is $WWW_STORE, or a folder here.
    """

    def __init__(self, root: Path, stand_ins: Path | None = None):
        here = root / "papermill_runs"
        self.root, self.stand_ins, self.notebooks = root, stand_ins, root / "notebooks"
        self.profiles, self.runs = here / "profiles", here / "runs"
        self.reference = here / "reference"
        self.data = stand_ins or _folder("WWW_DATA", "~/.cache/www")
        self.store = _folder("WWW_STORE", here / "store")

    def run(self, name: str) -> Path:
        """Return the folder of a run, rejecting a name that could lead out of `runs`."""
        folder = self.runs / name
        inside = folder.resolve().is_relative_to(self.runs.resolve())
        if not (NAME.fullmatch(name) and inside):
            fault = f"The output folder {name!r} is not a plain name inside {self.runs}"
            raise ValueError(f"{fault}; use letters, digits, - and _ only.")
        return folder


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file as a whole: a reader finds the old or the new one."""
    draft = path.with_suffix(".tmp")
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _folder(variable: str, default: str | Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().absolute()


@dataclass(frozen=True)
class Job:
    """One notebook, with the values that differ from its defaults, and with all of them.

    `typed` has the texts of the command line by the values that they became.
    """

    name: str
    source: Path
    given: dict[str, Any]
    effective: dict[str, Any]
    typed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """A profile as written; its form is checked, its parameters not yet.

    A notebook that runs more than once has a name for each run, as in ``04_tables@resnet50``.
    """

    name: str
    description: str = ""
    minutes: dict[str, float] = field(default_factory=dict)  # of each, or "all", on two cores
    required: list[str] = field(default_factory=list)  # parameters that --set has to give
    needs: list[str] = field(default_factory=list)  # entries of needs.yaml
    common: dict = field(default_factory=dict)  # for all that declare the parameter
    notebooks: dict[str, dict] = field(default_factory=dict)  # in order; over `common`


def names(project: Project) -> list[str]:
    """Return the names of all profiles."""
    return sorted(path.stem for path in project.profiles.glob("*.yaml"))


def load(project: Project, name: str) -> Profile:
    """Read a profile; ValueError if there is none, or the file does not have the form of one."""
    if name not in names(project):
        raise unknown(f"There is no profile {name!r}", name, names(project))
    path = project.profiles / f"{name}.yaml"
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read as YAML ({error}); correct it.") from error
    raw = changed(raw, lambda text: text.replace(DATA, str(project.data)))
    if not isinstance(raw, dict) or not raw.get("notebooks"):
        hint = "give it `notebooks:` with a name each."
        raise ValueError(f"Profile {name!r} names no notebooks; {hint}")
    entries = {entry: value for entry, value in raw.items() if value is not None}
    if type(entries.get("minutes")) in (int, float):
        entries["minutes"] = {"all": entries["minutes"]}
    if isinstance(books := entries["notebooks"], dict):
        entries["notebooks"] = {str(b): {} if own is None else own for b, own in books.items()}
    kinds = {one.name: one.type for one in fields(Profile)[1:]}
    for entry, value in entries.items():
        if entry not in kinds:
            raise unknown(f"Profile {name!r} has an unknown entry {entry!r}", entry, kinds)
        check(value, kinds[entry], f"The entry `{entry}` of profile {name!r}")
    return Profile(name, **entries)


def settings(pairs: list[str]) -> dict[str, str]:
    """Split the ``name=value`` pairs of the command line."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--set {pair!r} has no =; write --set name=value.")
        if name in found:
            raise ValueError(f"--set gives {name!r} twice; leave out one of them.")
        found[name] = text
    return found


def plan(
    project: Project, profile: Profile, only: list[str], given: Mapping[str, str]
) -> list[Job]:
    """Return the notebooks to run, in order, with their parameters; ValueError if one is wrong.

    `only` has beginnings of names, none for all; `given` the texts of the command line, for every
    chosen notebook that declares the parameter. Relative paths in them start at the working
    directory.
    """
    known = {path.stem: path for path in sorted(project.notebooks.glob("*.ipynb"))}
    # The notebook of 04_quantitative_tables@resnet50 is 04_quantitative_tables.
    sources = {name: known.get(name.partition("@")[0]) for name in profile.notebooks}
    for name, source in sources.items():
        if not source or not VARIANT.fullmatch(name):
            where = f"a notebook {name!r}, which is not in {project.notebooks}"
            raise unknown(f"Profile {profile.name!r} runs {where}", name, known)
    offered = {name: declared(source) for name, source in sources.items()}
    chosen = _chosen(profile, only)
    everything = {key: p for parameters in offered.values() for key, p in parameters.items()}
    theirs = {key: p for name in chosen for key, p in offered[name].items()}
    _check_names(profile.common, everything, f"`common` of profile {profile.name!r}")
    _check_names(given, theirs, "--set")
    if lacking := [name for name in profile.required if name in theirs and name not in given]:
        helps = ", ".join(f"{name!r} ({theirs[name].help})" for name in lacking)
        flags = " ".join(f"--set {name}=..." for name in lacking)
        raise ValueError(f"Profile {profile.name!r} needs a value for {helps}; give {flags}")
    jobs = []
    for name, parameters in offered.items():
        where, own = f"Profile {profile.name!r}, {name}", profile.notebooks[name]
        _check_names(own, parameters, where)
        values, typed = profile.common | own, {}
        values = {key: values[key] for key in parameters if key in values}
        for key, value in values.items():
            check(value, parameters[key].type, f"{where}: {key!r}")
        for key, one in parameters.items():
            if key in given:
                read = parse(given[key], one.type, f"--set: {key!r}")
                move = partial(one.moved, here=Path.cwd(), there=project.notebooks)
                values[key] = changed(read, move)
                typed |= dict(zip(texts(values[key]), texts(read), strict=True))
        defaults = {key: p.default for key, p in parameters.items() if key != RESERVED}
        jobs.append(Job(name, sources[name], values, defaults | values, typed))
    return [job for job in jobs if job.name in chosen]


def _chosen(profile: Profile, only: list[str]) -> list[str]:
    for beginning in only:
        if not any(name.startswith(beginning) for name in profile.notebooks):
            sentence = f"--only {beginning!r} fits no notebook of profile {profile.name!r}"
            raise unknown(sentence, beginning, profile.notebooks)
    # A whole name means that notebook alone, though others may begin with it.
    whole = [one for one in only if one in profile.notebooks]
    begun = tuple(one for one in only if one not in profile.notebooks)
    return [n for n in profile.notebooks if not only or n in whole or n.startswith(begun)]


def _check_names(values: Mapping, offered: Mapping[str, Parameter], where: str) -> None:
    for name in values:
        if name == RESERVED:
            raise ValueError(f"{where} sets {name!r}, which the runner sets itself; use --out.")
        if name not in offered:
            free = [one for one in offered if one != RESERVED]
            raise unknown(f"{where} sets {name!r}, which is not declared", name, free)


def missing(project: Project, jobs: list[Job]) -> list[str]:
    """Return a line for every input file or folder of some notebooks that does not exist."""
    found: dict[str, list[str]] = {}
    for job in jobs:
        for name, parameter in declared(job.source).items():
            for text in texts(job.effective.get(name)):
                if parameter.is_missing(text, project.notebooks):
                    found.setdefault(f"{name}: {job.typed.get(text, text)}", []).append(job.name)
    return [f"{what} (for {', '.join(books)})" for what, books in found.items()]
