"""A profile says which notebooks run, with which parameters; a plan is a profile found sound.

Everything is checked before anything runs: notebooks exist, every parameter is declared by the
notebook that is to get it, and every value is finite and of the declared type.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from parameters import Parameter, check, declared, nearest

FIELDS = ["description", "minutes", "required", "needs", "common", "notebooks"]
NAME = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)
VARIANT = re.compile(rf"{NAME.pattern}(@{NAME.pattern})?", re.ASCII)  # one notebook, run twice
DATA = "$WWW_DATA"  # in a value: the data folder
RESERVED = "out"  # the folder that a notebook writes to


@dataclass(frozen=True)
class House:
    """Where things are, seen from the root of the repository."""

    root: Path
    stage: Path | None = None  # data folder of a rehearsal

    @property
    def data(self) -> Path:
        """Data sets and weights that no library keeps; WWW_DATA names another folder."""
        usual = os.environ.get("WWW_DATA") or "~/.cache/www"
        return self.stage or Path(usual).expanduser().absolute()

    @property
    def notebooks(self) -> Path:
        """Sources of the notebooks."""
        return self.root / "notebooks"

    @property
    def profiles(self) -> Path:
        """One YAML file a profile."""
        return self.root / "papermill_runs" / "profiles"

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.root / "papermill_runs" / "runs"

    @property
    def reference(self) -> Path:
        """Executed copies for readers."""
        return self.root / "papermill_runs" / "reference"

    @property
    def store(self) -> Path:
        """Artifacts that runs share; WWW_STORE names another folder."""
        default = self.root / "papermill_runs" / "store"
        return Path(os.environ.get("WWW_STORE") or default).expanduser().absolute()

    def run(self, name: str) -> Path:
        """Return the folder of a run, refusing a name that could lead out of `runs`."""
        folder = self.runs / name
        inside = folder.resolve().is_relative_to(self.runs.resolve())
        if not (NAME.fullmatch(name) and inside):
            raise ValueError(
                f"The output folder {name!r} is not a plain name inside {self.runs}; "
                "use letters, digits, - and _ only."
            )
        return folder


@dataclass(frozen=True)
class Job:
    """One notebook with the values that differ from its defaults, and with all of them."""

    name: str
    source: Path
    given: dict[str, Any]
    effective: dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """A profile as written, its form checked but not yet its parameters.

    Attributes
    ----------
    name, description : str
    minutes : float or None
        Expected run time on two cores.
    required : tuple of str
        Parameters that only the user can know, to be given with ``--set``.
    needs : tuple of str
        What must be there before it can run, see ``needs.yaml``.
    common : dict
        Values for every notebook that declares the parameter.
    notebooks : dict[str, dict]
        Values for one notebook, which win over `common`; in the order of the run. A notebook that
        runs more than once has a name for each run, as in ``04_quantitative_tables@resnet50``.
    """

    name: str
    description: str
    minutes: float | None
    required: tuple[str, ...]
    needs: tuple[str, ...]
    common: dict[str, Any]
    notebooks: dict[str, dict[str, Any]]


def names(house: House) -> list[str]:
    """Return the names of all profiles."""
    return sorted(path.stem for path in house.profiles.glob("*.yaml"))


def load(house: House, name: str) -> Profile:
    """Read a profile.

    Raises
    ------
    ValueError
        If there is no such profile, or the file does not have the form of one.
    """
    known = names(house)
    if name not in known:
        raise ValueError(f"There is no profile {name!r}; there is {', '.join(known) or 'none'}.")
    path = house.profiles / f"{name}.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name} cannot be read as YAML ({reason}); correct it.") from error
    return _profile(name, _filled_in(raw, str(house.data)))


def _filled_in(value: Any, data: str) -> Any:
    """Put the data folder where a profile says so."""
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
    for field in raw:
        if field not in FIELDS:
            known = nearest(str(field), FIELDS)
            raise ValueError(f"Profile {name!r} has an unknown entry {field!r}; {known}.")
    sections = {f"notebooks: {book}": values for book, values in raw["notebooks"].items()}
    for where, values in {"common": raw.get("common"), **sections}.items():
        if not isinstance(values, dict | None):
            raise ValueError(
                f"Profile {name!r} has {values!r} under `{where}`, "
                "but parameters go there, a line each as `name: value`."
            )
    description, minutes = raw.get("description", ""), raw.get("minutes")
    required = raw.get("required", [])
    check(description, "str", f"The description of profile {name!r}")
    check(minutes, "float | None", f"The entry `minutes` of profile {name!r}")
    check(required, "list[str]", f"The entry `required` of profile {name!r}")
    needs = raw.get("needs", [])
    check(needs, "list[str]", f"The entry `needs` of profile {name!r}")
    notebooks = {str(book): values or {} for book, values in raw["notebooks"].items()}
    common, lists = raw.get("common") or {}, (tuple(required), tuple(needs))
    return Profile(name, description, minutes, *lists, common, notebooks)


def settings(house: House, pairs: list[str]) -> dict[str, Any]:
    """Read ``name=value`` pairs from the command line, values as YAML.

    Notebooks run in their own folder, so a path that begins with ``./``, ``../`` or ``~``, which
    its writer meant from where he stands, is turned into one from there.
    """
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--set {pair!r} has no =; write --set name=value.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(
                f"--set {pair!r} has no value that YAML can read; quote it."
            ) from error
        if isinstance(value, str) and value.startswith(("./", "../", "~")):
            value = os.path.relpath(os.path.expanduser(value), house.notebooks)
        found[name] = value
    return found


def plan(house: House, profile: Profile, only: list[str], given: dict[str, Any]) -> list[Job]:
    """Return the notebooks to run, in order, with their parameters.

    Parameters
    ----------
    only : list of str
        Beginnings of names; none means all.
    given : dict
        Values from the command line, for every chosen notebook that declares the parameter.

    Raises
    ------
    ValueError
        If anything in the profile or on the command line cannot be done, with what could be.
    """
    sources = {path.stem: path for path in sorted(house.notebooks.glob("*.ipynb"))}
    for name in profile.notebooks:
        if _book(name) not in sources or not VARIANT.fullmatch(name):
            raise ValueError(
                f"Profile {profile.name!r} runs a notebook {name!r}, which is not in "
                f"{house.notebooks}; {nearest(name, list(sources))}."
            )
    chosen = _choose(profile, only)
    offered = {name: declared(sources[_book(name)]) for name in profile.notebooks}
    _check_shared(profile.common, offered, f"`common` of profile {profile.name!r}")
    _check_shared(given, {name: offered[name] for name in chosen}, "--set")
    _check_required(profile, given, {name: offered[name] for name in chosen})
    for name, values in profile.notebooks.items():
        _check_values(values, offered[name], f"Profile {profile.name!r}, {name}")
    return [_job(name, sources[_book(name)], profile, given, offered[name]) for name in chosen]


def _book(name: str) -> str:
    """Return the notebook of a run's name: ``04_quantitative_tables`` of ``...@resnet50``."""
    return name.partition("@")[0]


def _choose(profile: Profile, only: list[str]) -> list[str]:
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


def _job(name: str, source: Path, profile: Profile, given: dict, offered: dict) -> Job:
    values = {**profile.common, **profile.notebooks[name], **given}
    mine = {parameter: values[parameter] for parameter in offered if parameter in values}
    defaults = {key: p.default for key, p in offered.items() if key != RESERVED}
    return Job(name, source, mine, defaults | mine)


def _check_required(profile: Profile, given: dict, offered: dict[str, dict]) -> None:
    for name in profile.required:
        helps = [parameters[name].help for parameters in offered.values() if name in parameters]
        if helps and name not in given:
            raise ValueError(
                f"Profile {profile.name!r} cannot know {name!r} ({helps[0]}); "
                f"give it with --set {name}=..."
            )


def _check_shared(values: dict, offered: dict[str, dict[str, Parameter]], where: str) -> None:
    """Check values that go to every notebook which declares them: at least one must."""
    union = {name: p for parameters in offered.values() for name, p in parameters.items()}
    _check_values(values, union, where)
    for notebook, parameters in offered.items():
        mine = {name: value for name, value in values.items() if name in parameters}
        _check_values(mine, parameters, f"{where} for {notebook}")


def _check_values(values: dict, offered: dict[str, Parameter], where: str) -> None:
    free = [name for name in offered if name != RESERVED]
    for name, value in values.items():
        if name == RESERVED:
            raise ValueError(f"{where} sets {name!r}, which the runner sets itself; use --out.")
        if not isinstance(name, str) or name not in offered:
            known = nearest(str(name), free)
            raise ValueError(f"{where} sets {name!r}, which is not declared; {known}.")
        check(value, offered[name].type, f"{where}: {name!r}")
