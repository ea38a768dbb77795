"""A profile says which notebooks run, with which parameters; a plan is a profile without errors.

Everything is checked before anything runs: notebooks exist, every parameter is declared by the
notebook that is to get it, every value is finite and of the declared type, and input files exist.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parameters import Parameter, check, declared, nearest, parse, read_yaml, texts

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
            raise ValueError(
                f"The output folder {name!r} is not a plain name inside {self.runs}; "
                "use letters, digits, - and _ only."
            )
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

    Attributes
    ----------
    name, description : str
    minutes : dict of str to float
        Expected run time of each notebook on two cores; ``"all"`` where only the sum is known.
    required : list of str
        Parameters that have to be given with ``--set``.
    needs : list of str
        What must be there before it can run, see ``needs.yaml``.
    common : dict
        Values for every notebook that declares the parameter.
    notebooks : dict[str, dict]
        Values for one notebook, which win over `common`; in the order of the run. A notebook that
        runs more than once has a name for each run, as in ``04_quantitative_tables@resnet50``.
    """

    name: str
    description: str = ""
    minutes: dict[str, float] = field(default_factory=dict)
    required: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    common: dict[str, Any] = field(default_factory=dict)
    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)


KINDS = {  # of the entries of a profile; None for those that are checked with the notebooks
    "description": "str", "minutes": "float | dict[str, float]", "required": "list[str]",
    "needs": "list[str]", "common": None, "notebooks": None,
}  # fmt: skip


def names(project: Project) -> list[str]:
    """Return the names of all profiles."""
    return sorted(path.stem for path in project.profiles.glob("*.yaml"))


def load(project: Project, name: str) -> Profile:
    """Read a profile; ValueError if there is none, or the file does not have the form of one."""
    known = names(project)
    if name not in known:
        raise ValueError(f"There is no profile {name!r}; there is {', '.join(known) or 'none'}.")
    path = project.profiles / f"{name}.yaml"
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read as YAML ({error}); correct it.") from error
    return _profile(name, _filled_in(raw, str(project.data)))


def _filled_in(value: Any, data: str) -> Any:
    """Replace `DATA` by the data folder."""
    if isinstance(value, dict):
        return {key: _filled_in(inner, data) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled_in(inner, data) for inner in value]
    return value.replace(DATA, data) if isinstance(value, str) else value


def _profile(name: str, raw: Any) -> Profile:
    if not isinstance(raw, dict) or not isinstance(raw.get("notebooks"), dict):
        raise ValueError(
            f"Profile {name!r} names no notebooks; give it `notebooks:` with a name each."
        )
    entries = {entry: value for entry, value in raw.items() if value is not None}
    for entry, value in entries.items():
        if entry not in KINDS:
            known = nearest(str(entry), [*KINDS])
            raise ValueError(f"Profile {name!r} has an unknown entry {entry!r}; {known}.")
        if KINDS[entry]:
            check(value, KINDS[entry], f"The entry `{entry}` of profile {name!r}")
    books = {str(book): values or {} for book, values in raw["notebooks"].items()}
    common = entries.get("common", {})
    for where, values in {"common": common, **{f"notebooks: {b}": books[b] for b in books}}.items():
        if not isinstance(values, dict):
            raise ValueError(
                f"Profile {name!r} has {values!r} under `{where}`, "
                "but parameters go there, a line each as `name: value`."
            )
    minutes = entries.get("minutes", {})
    minutes = minutes if isinstance(minutes, dict) else {"all": minutes}
    return Profile(name, **entries | {"minutes": minutes, "notebooks": books})


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
    """Return the notebooks to run, in order, with their parameters.

    Parameters
    ----------
    only : list of str
        Beginnings of names; none means all.
    given : mapping
        Texts from the command line, for every chosen notebook that declares the parameter. They
        are converted to its type; relative paths in them start at the working directory.

    Raises
    ------
    ValueError
        If a name or a value in the profile or on the command line is wrong.
    """
    sources = {path.stem: path for path in sorted(project.notebooks.glob("*.ipynb"))}
    for name in profile.notebooks:
        if _book(name) not in sources or not VARIANT.fullmatch(name):
            raise ValueError(
                f"Profile {profile.name!r} runs a notebook {name!r}, which is not in "
                f"{project.notebooks}; {nearest(name, list(sources))}."
            )
    offered = {name: declared(sources[_book(name)]) for name in profile.notebooks}
    chosen = _chosen(profile, only)
    _check_names(profile.common, _union(offered.values()), f"`common` of profile {profile.name!r}")
    _check_names(given, _union(offered[name] for name in chosen), "--set")
    _check_required(profile, given, _union(offered[name] for name in chosen))
    jobs = [_job(project, profile, n, sources[_book(n)], offered[n], given) for n in offered]
    return [job for job in jobs if job.name in chosen]


def _job(
    project: Project,
    profile: Profile,
    name: str,
    source: Path,
    parameters: Mapping[str, Parameter],
    given: Mapping[str, str],
) -> Job:
    """Return a notebook with its checked values, in the order of its parameters."""
    where, values = f"Profile {profile.name!r}, {name}", profile.common | profile.notebooks[name]
    _check_names(profile.notebooks[name], parameters, where)
    mine, typed = {key: values[key] for key in parameters if key in values}, {}
    for key, value in mine.items():
        check(value, parameters[key].type, f"{where}: {key!r}")
    for key in [key for key in given if key in parameters]:
        read = parse(given[key], parameters[key].type, f"--set: {key!r}")
        mine[key] = parameters[key].moved(read, Path.cwd(), project.notebooks)
        typed |= zip(texts(mine[key]), texts(read), strict=True)
    defaults = {key: p.default for key, p in parameters.items() if key != RESERVED}
    return Job(name, source, mine, defaults | mine, typed)


def _union(offered: Iterable[Mapping[str, Parameter]]) -> dict[str, Parameter]:
    return {name: p for parameters in offered for name, p in parameters.items()}


def _book(name: str) -> str:
    """Return the notebook of a run's name: ``04_quantitative_tables`` of ``...@resnet50``."""
    return name.partition("@")[0]


def _chosen(profile: Profile, only: list[str]) -> list[str]:
    for beginning in only:
        if not any(name.startswith(beginning) for name in profile.notebooks):
            raise ValueError(
                f"--only {beginning!r} fits no notebook of profile {profile.name!r}; "
                f"{nearest(beginning, list(profile.notebooks))}."
            )
    # A whole name means that notebook alone, though others may begin with it.
    whole = [one for one in only if one in profile.notebooks]
    begun = tuple(one for one in only if one not in profile.notebooks)
    return [n for n in profile.notebooks if not only or n in whole or n.startswith(begun)]


def _check_required(profile: Profile, given: Mapping, offered: Mapping[str, Parameter]) -> None:
    lacking = [name for name in profile.required if name in offered and name not in given]
    if lacking:
        helps = ", ".join(f"{name!r} ({offered[name].help})" for name in lacking)
        flags = " ".join(f"--set {name}=..." for name in lacking)
        raise ValueError(f"Profile {profile.name!r} needs a value for {helps}; give {flags}")


def _check_names(values: Mapping, offered: Mapping[str, Parameter], where: str) -> None:
    for name in values:
        if name == RESERVED:
            raise ValueError(f"{where} sets {name!r}, which the runner sets itself; use --out.")
        if name not in offered:
            known = nearest(str(name), [free for free in offered if free != RESERVED])
            raise ValueError(f"{where} sets {name!r}, which is not declared; {known}.")


def missing(project: Project, jobs: list[Job]) -> list[str]:
    """Return a line for every input file or folder of some notebooks that does not exist."""
    found: dict[str, list[str]] = {}
    for job in jobs:
        for name, parameter in declared(job.source).items():
            for text in texts(job.effective.get(name)):
                if parameter.is_missing(text, project.notebooks):
                    found.setdefault(f"{name}: {job.typed.get(text, text)}", []).append(job.name)
    return [f"{what} (for {', '.join(books)})" for what, books in found.items()]
