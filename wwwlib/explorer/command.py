"""The command line: ``wwwlib names``, ``explain``, ``report``, ``compare`` and ``serve``.

An option can also stand in a TOML file, given by ``--config``: ``network = "timm/resnet50"``.
"""

import os
import shlex
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import click
import pandas as pd
from tqdm import tqdm

from wwwlib import language, short_way, targets, world
from wwwlib.atlas import Atlas, Explanation
from wwwlib.images import ImageSet, folder
from wwwlib.images.files import list_files, open_files
from wwwlib.registry import EXTENSIONS, expanded

WRITERS = {".csv": "to_csv", ".json": "to_json", ".parquet": "to_parquet"}
_WORLD = "--images world --encoder world --words world --layers layer4"  # of examples


def _read(context: click.Context, _, path: str | None) -> None:
    """Take the options of a TOML file as defaults."""
    if path is None:
        return
    try:
        found = tomllib.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise click.BadParameter(f"{path!r} is no TOML: {error}.") from error
    found = {name.replace("-", "_"): value for name, value in found.items()}
    for name in found.keys() - {option.name for option in context.command.params}:
        raise click.BadParameter(f"{path!r} has {name!r}, which is no option of this command.")
    context.default_map = found


_FILE, _PATH = click.Path(exists=True, dir_okay=False), click.Path(exists=True)
_TOML = {"callback": _read, "is_eager": True, "expose_value": False, "type": _FILE}
_OPTIONS = {
    "--config": _TOML | {"help": "TOML file with options."},
    "--images": {"required": True, "help": "Probe images: a folder, or 'world'."},
    "--test": {"help": "Images that test names: folders of classes; 'world' if --images is."},
    "--words": {"default": "wordnet", "help": "A file, 'wordnet', 'classes' or 'world'."},
    "--encoder": {"default": short_way.ENCODER, "help": "Or file.py:function, or 'world'."},
    "--layers": {"multiple": True, "help": "With commas between; else the last with positions."},
    "-k": {"default": 40, "help": "Exemplars per neuron."},
    "--alpha": {"default": 0.95, "help": "Share of the best score that a name needs."},
    "--device": {"help": "cpu, cuda or cuda:1; by default cuda where available."},
    "--store/--no-store": {"default": True, "help": "Keep intermediate results, and resume."},
}
_PHOTO = {"multiple": True, "type": _PATH, "help": "Pictures or folders; can be repeated."}
_HTML = {"required": True, "help": "HTML file to write."}
_ONE = {
    "--network": {"required": True, "help": "timm/..., torchvision/... or file.py:function."},
    "--weights": {"help": "File with the weights of the network."},
}
_WHY = {
    "--report": {"help": "HTML file to write."},
    "--instead-of": {"help": "Class that the decision is compared with."},
}


def _with(*options: Mapping) -> Callable:
    """Decorate a command with options, and with those that all commands share."""

    def decorate(command: Callable) -> Callable:
        each = {name: how for given in (*options, _OPTIONS) for name, how in given.items()}
        for name, how in reversed(each.items()):
            names = (name, "photos") if name == "--photo" else (name,)
            command = click.option(*names, **{"show_default": True, **how})(command)
        return command

    return decorate


class _Sentences(click.Group):
    """Commands whose errors are one sentence on the terminal, with exit code 1."""

    def invoke(self, context: click.Context) -> object:
        """Run a command; code 2 stands for wrong options."""
        try:
            return super().invoke(context)
        except (ValueError, TypeError, OSError, ImportError, AttributeError, RuntimeError) as error:
            raise click.ClickException(_printable(str(error))) from error


def _say(name: str, found: Explanation) -> None:
    tqdm.write(_printable(f"{name}: {found}"))


def _printable(text: str) -> str:
    """Return a text without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wwwlib")
def main() -> None:
    """Explain the decisions of an image classifier by named neurons."""


@main.command(epilog=f"wwwlib names --network world/conv {_WORLD} --out names.csv")
@_with(_ONE, {"--out": {"required": True, "help": f"File to write: {', '.join(WRITERS)}."}})
def names(network: str, weights: str | None, out: str, **how: object) -> None:
    """Write names, scores, tests and exemplar files of all neurons; print the surest names."""
    path = expanded(out)
    if path.suffix not in WRITERS:
        raise click.BadParameter(f"{out!r} does not end in {', '.join(WRITERS)}.")
    book, probe = _build(network, weights, **how)
    parts = []
    for layer, record in book.layers.items():
        rows = record.exemplars.index[:, :8].tolist()
        files = [[probe.names[i] for i in row if i >= 0] for row in rows]
        parts.append(book.names(layer).assign(layer=layer, exemplars=files))
    table = pd.concat(parts, ignore_index=True)
    if path.suffix == ".csv":  # a cell that begins like a formula would be one
        table["best"] = table["best"].map(lambda x: f"'{x}" if str(x)[:1] in "=+-@" else x)
    path.parent.mkdir(parents=True, exist_ok=True)
    form = {"orient": "records", "indent": 1} if path.suffix == ".json" else {"index": False}
    getattr(table, WRITERS[path.suffix])(path, **form)
    click.echo(f"{'layer':24} neuron  AUROC  names")
    for row in table.sort_values("auroc", ascending=False, kind="stable").head(12).itertuples():
        line = f"{row.layer[-24:]:24} {row.neuron:6} {row.auroc:6.2f}  {', '.join(row.names)}"
        click.echo(_printable(line)[:100])
    named, tested = (table.names.str.len() > 0).sum(), table.auroc.notna().sum()
    click.echo(f"{path}: {len(table)} neurons, {named} named, {tested} tested.")


@main.command(epilog="wwwlib explain photo.jpg --network timm/resnet50 --images photos/")
@click.argument("photos", nargs=-1, required=True, type=_PATH)
@_with(_ONE, _WHY)
def explain(photos: tuple, network: str, weights: str | None, report: str | None,
            instead_of: str | None, **how: object) -> None:  # fmt: skip
    """Explain pictures, or folders of them, in a sentence each, and in a page."""
    from wwwlib.studies.datasets import class_name

    pictures = _pictures(photos)
    book, probe = _build(network, weights, **how)
    if report:
        _write({network: book}, report, pictures, probe, instead_of=instead_of, say=_say)
        return
    for i, name in enumerate(pictures.names):
        label = class_name(pictures, i, book.classes)
        label = label if label in book.classes else None
        _say(name, book.explain(pictures.image(i), label=label, instead_of=instead_of))


@main.command(epilog=f"wwwlib report --network world/conv {_WORLD} --out a.html --photo b.jpg")
@click.argument("more", nargs=-1, metavar="", type=_PATH)
@_with(_ONE, {"--out": _HTML, "--photo": _PHOTO})
def report(network: str, weights: str | None, out: str, photos: tuple, more: tuple, **how) -> None:
    """Write one page: decisions explained, and all neurons, to open from disk."""
    pictures = _pictures((*photos, *more)) if photos or more else None
    book, probe = _build(network, weights, **how)
    _write({network: book}, out, pictures, probe)


@main.command(epilog=f"wwwlib compare world/conv world/conv-biased {_WORLD} --out both.html")
@click.argument("networks", nargs=2, metavar="NETWORK NETWORK")
@_with({"--weights": _ONE["--weights"] | {"multiple": True}, "--out": _HTML, "--photo": _PHOTO})
def compare(networks: tuple, weights: tuple, out: str, photos: tuple, **how: object) -> None:
    """Compare two networks, or two checkpoints, on the same images and words, in a page."""
    from wwwlib.explorer.compare import compare as compared

    pictures, books = _pictures(photos) if photos else None, {}
    for i, network in enumerate(networks):
        own = weights[i] if i < len(weights) else None
        books[f"{network}, {own}" if own else network], probe = _build(network, own, **how)
    _write(books, out, pictures, probe, compared(books, probe))


@main.command(epilog=f"wwwlib serve --network world/conv {_WORLD}")
@_with(_ONE, {"--photo": _PHOTO, "--port": {"default": 8866, "help": "Where to listen."}})
def serve(port: int, store: bool, **chosen: object) -> None:
    """Open the explorer on 127.0.0.1, behind a token, until it is interrupted."""
    import nbformat

    from wwwlib.explorer.serve import serve as become

    if not store:
        raise click.BadParameter("The pages read what is computed here; leave --no-store out.")
    page(**chosen)  # computes and keeps what the pages read
    code = f"import os\nfrom wwwlib.explorer.command import page\nos.chdir({os.getcwd()!r})\n"
    cell = nbformat.v4.new_code_cell(f"{code}page(**{chosen!r})")
    path = Path(tempfile.mkdtemp(prefix="wwwlib-")) / "explorer.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    become(path, port)


def page(network: str, weights: str | None, photos: Sequence[str], **how: object) -> object:
    """Return the explorer of a network, as `serve` shows it."""
    from wwwlib.explorer import Pictures, explorer

    book, probe = _build(network, weights, store=True, **how)
    shown = Pictures(_pictures(photos) if photos else probe)
    if how["images"] == "world" and not photos:
        shown = Pictures(world.image_set(240, 1), partial(world.sample, seed=1))
    return explorer({network: book}, {"pictures": shown}, language.encoder(how["encoder"]))


def _build(network, weights, images, test, words, encoder, layers, k, alpha, device, store):
    """Return the atlas of a network and its probe images."""
    target = targets.load(network, weights)
    probe = short_way.image_set(images, target)
    test = images if test is None and images in EXTENSIONS else test
    layers = [one.strip() for given in layers for one in given.split(",")] or None
    how = {"test": test, "device": device, "store": store, "k": k, "alpha": alpha}
    return short_way.build(target, probe, layers, words, encoder, **how), probe


def _pictures(paths: Sequence[str]) -> ImageSet:
    """Open a folder, which may have a folder for each class, or files and folders together."""
    if len(paths) == 1 and Path(paths[0]).is_dir():
        return folder(paths[0])
    each = [Path(one).absolute() for one in paths]
    listed = [one / name for one in each if one.is_dir() for name in list_files(one)]
    listed += [one for one in each if not one.is_dir()]
    root = Path(os.path.commonpath([one.parent for one in listed]))
    names = [str(one.relative_to(root)) for one in listed]
    return open_files(root, names, [None] * len(names), [], tolerate=0.0)


def _write(books: Mapping[str, Atlas], out: str, pictures, probe, compared=None, **how) -> None:
    from wwwlib.explorer.report import report as write

    line = shlex.join(["wwwlib", *sys.argv[1:]])
    path = write(books, expanded(out), pictures, probe, line, compared, **how)
    click.echo(f"{path}, {path.stat().st_size / 1e6:.1f} MB: open it in a browser.")
