"""A profile says which notebooks run, with which parameters; a plan is a profile without errors.

Everything is checked before anything runs: notebooks exist, every parameter is declared by the
notebook that is to get it, every value is finite and of the declared type, and input files exist.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from parameters import Parameter, check, declared, nearest, parse

FIELDS = ["description", "minutes", "required", "needs", "common", "notebooks"]
NAME = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)
VARIANT = re.compile(rf"{NAME.pattern}(@{NAME.pattern})?", re.ASCII)  # one notebook, run twice
DATA = "$WWW_DATA"  # in a value: the data folder
RESERVED = "out"  # the folder that a notebook writes to


class Project:
    """Folders of the repository, and the data folder.

    Attributes
    ----------
    root, notebooks, profiles, runs, reference : Path
    data : Path
        Data sets and weights that no library keeps: $WWW_DATA, or the stand-ins of a dry run.
    store : Path
        Artifacts that runs share: $WWW_STORE, or a folder in the repository.
    """

    def __init__(self, root: Path, stand_ins: Path | None = None):
        here = root / "papermill_runs"
        self.root, self.stand_ins, self.notebooks = root, stand_ins, root / "notebooks"
        self.profiles, self.runs, self.reference = (
            here / "profiles",
            here / "runs",
            here / "reference",
        )
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


def _folder(variable: str, default: str | Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().absolute()


@dataclass(frozen=True)
class Job:
    """One notebook with the values that differ from its defaults, and with all of them."""

    name: str
    source: Path
    given: dict[str, Any]
    effective: dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """A profile as written; its form is checked, its parameters not yet.

    Attributes
    ----------
    name, description : str
    minutes : dict of str to float
        Expected run time of each notebook on two cores; ``"all"`` where only the sum is known.
    required : tuple of str
        Parameters that have to be given with ``--set``.
    needs : tuple of str
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
    required: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    common: dict[str, Any] = field(default_factory=dict)
    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)


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
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name} cannot be read as YAML ({reason}); correct it.") from error
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
    for entry in raw:
        if entry not in FIELDS:
            known = nearest(str(entry), FIELDS)
            raise ValueError(f"Profile {name!r} has an unknown entry {entry!r}; {known}.")
    notebooks = {str(book): values for book, values in raw["notebooks"].items()}
    sections = {f"notebooks: {book}": values for book, values in notebooks.items()}
    for where, values in {"common": raw.get("common"), **sections}.items():
        if not isinstance(values, dict | None):
            raise ValueError(
                f"Profile {name!r} has {values!r} under `{where}`, "
                "but parameters go there, a line each as `name: value`."
            )
    minutes = raw.get("minutes") or {}
    minutes = minutes if isinstance(minutes, dict) else {"all": minutes}
    description = raw.get("description", "")
    required, needs = raw.get("required", []), raw.get("needs", [])
    where = f"of profile {name!r}"
    check(description, "str", f"The entry `description` {where}")
    check(minutes, "dict[str, float]", f"The entry `minutes` {where}")
    check([required, needs], "list[list[str]]", f"The entries `required` and `needs` {where}")
    books = {book: values or {} for book, values in notebooks.items()}
    common = raw.get("common") or {}
    return Profile(name, description, minutes, tuple(required), tuple(needs), common, books)


def settings(pairs: list[str]) -> dict[str, str]:
    """Split the ``name=value`` pairs of the command line."""
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"--set {pair!r} has no =; write --set name=value.")
    return dict(pair.split("=", 1) for pair in pairs)


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
    everything = _union(offered.values())
    _check_names(profile.common, everything, f"`common` of profile {profile.name!r}")
    _check_names(given, _union(offered[name] for name in chosen), "--set")
    _check_required(profile, given, _union(offered[name] for name in chosen))
    jobs = []
    for name, parameters in offered.items():
        values = _values(profile, name, parameters)
        values |= {k: _set(t, parameters[k], project) for k, t in given.items() if k in parameters}
        defaults = {key: p.default for key, p in parameters.items() if key != RESERVED}
        jobs.append(Job(name, sources[_book(name)], values, defaults | values))
    return [job for job in jobs if job.name in chosen]


def _union(offered: Iterable[Mapping[str, Parameter]]) -> dict[str, Parameter]:
    return {name: p for parameters in offered for name, p in parameters.items()}


def _values(profile: Profile, name: str, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the checked values of one notebook, in the order of its parameters."""
    where, own = f"Profile {profile.name!r}, {name}", profile.notebooks[name]
    _check_names(own, parameters, where)
    values = profile.common | own
    mine = {key: values[key] for key in parameters if key in values}
    for key, value in mine.items():
        check(value, parameters[key].type, f"{where}: {key!r}")
    return mine


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
    return [
        name for name in profile.notebooks if not only or name in whole or name.startswith(begun)
    ]


def _check_required(profile: Profile, given: Mapping, offered: Mapping[str, Parameter]) -> None:
    lacking = [name for name in profile.required if name in offered and name not in given]
    if lacking:
        helps = ", ".join(f"{name!r} ({offered[name].help})" for name in lacking)
        flags = " ".join(f"--set {name}=..." for name in lacking)
        raise ValueError(f"Profile {profile.name!r} needs a value for {helps}; give {flags}")


def _check_names(values: Mapping, offered: Mapping[str, Parameter], where: str) -> None:
    free = [name for name in offered if name != RESERVED]
    for name in values:
        if name == RESERVED:
            raise ValueError(f"{where} sets {name!r}, which the runner sets itself; use --out.")
        if not isinstance(name, str) or name not in offered:
            known = nearest(str(name), free)
            raise ValueError(f"{where} sets {name!r}, which is not declared; {known}.")


def _set(text: str, parameter: Parameter, project: Project) -> Any:
    value = parse(text, parameter.type, f"--set: {parameter.name!r}")
    return _from_here(value, parameter, project)


# Input files --------------------------------------------------------------------------------


def texts(value: Any) -> Iterator[str]:
    """Yield every string in a value, however deep in lists and dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from texts([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts(one)


def missing(project: Project, jobs: list[Job]) -> list[str]:
    """Return a line for every input file or folder of some notebooks that does not exist."""
    found: dict[str, list[str]] = {}
    for job in jobs:
        for name, parameter in declared(job.source).items():
            for text in texts(job.effective.get(name)):
                if name != RESERVED and _is_missing(text, parameter, project.notebooks):
                    found.setdefault(f"{name}: {text}", []).append(job.name)
    return [f"{what} (for {', '.join(books)})" for what, books in found.items()]


def _is_missing(text: str, parameter: Parameter, notebooks: Path) -> bool:
    """Whether a text names a path, perhaps after ``kind:``, and nothing is there."""
    if "://" in text or (notebooks / os.path.expanduser(text)).exists():
        return False
    parts = [text] if parameter.is_path else text.split(":")
    paths = [part for part in parts if parameter.is_path or _looks_like_path(part)]
    return any(not (notebooks / os.path.expanduser(path)).exists() for path in paths)


def _looks_like_path(text: str) -> bool:
    return text.startswith(("./", "../", "/", "~"))


def _from_here(value: Any, parameter: Parameter, project: Project) -> Any:
    """Turn paths that are relative to the working directory into paths from the notebooks."""
    if isinstance(value, list):
        return [_from_here(one, parameter, project) for one in value]
    if not isinstance(value, str) or "://" in value:
        return value
    parts = [value] if parameter.is_path else value.split(":")
    return ":".join(_moved(part, parameter, project.notebooks) for part in parts)


def _moved(text: str, parameter: Parameter, notebooks: Path) -> str:
    path = os.path.expanduser(text)
    written = parameter.is_path or _looks_like_path(text)
    named = "/" in text or "." in text or parameter.may_be_path
    if not text or os.path.isabs(text) or not (written or (named and os.path.exists(path))):
        return text
    return os.path.relpath(path, notebooks)
