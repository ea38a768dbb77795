"""One HTML file with explanations of pictures and the atlases that they rest on.

It opens from disk, without network, server or kernel. All that its controls can show is in it as
JSON: contributions and maps of the pictures; names, exemplars and tests of the neurons. Its script
computes shares, regions, heatmaps and r from them, as `atlas` and `maps` do.

Names of concepts, classes and files are arbitrary strings: the template escapes them, and the
script inserts them as text.
"""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.atlas import Atlas, LayerRecord
from wwwlib.atlas.explain import Explanation, ModelOutput, make_explanation, run_model
from wwwlib.concepts import ConceptTable, discover
from wwwlib.evaluation import activations
from wwwlib.explorer import markup
from wwwlib.explorer.compare import first_names
from wwwlib.images import ImageSet, match_labels, subset
from wwwlib.maps import ACTIVATION
from wwwlib.registry import require
from wwwlib.store import file_digest
from wwwlib.studies.datasets import class_name

DETAILED = 20  # pictures with tracks and controls; all have a row in the table
TRACK = 8  # neurons of a track, at most
LISTED = 24  # pictures of a group that are shown
CLASSES = 5  # most probable classes for which a picture can be explained
_ALPHA, _NAMES = 0.5, 12  # lowest alpha of the page, and names of a neuron, at most
_SIDE = 320  # pixels of the longer side of a picture, at most
_CHECKED = 400  # labelled images behind the calibration, at most
_LEVELS = (0.0, 0.5, 0.7, 0.9, 0.97, 1.0)  # of probability, between which predictions are counted


def report(
    books: Mapping[str, Atlas],
    out: str | Path,
    photos: ImageSet | None = None,
    probe: ImageSet | None = None,
    command: str = "",
    compared: Mapping | None = None,
    instead_of: int | str | None = None,
    say: Callable[[str, Explanation], object] | None = None,
) -> Path:
    """Write a report: an HTML page, and its provenance as JSON beside it.

    Parameters
    ----------
    books : mapping of str to Atlas
        The networks, by the names that the page shows.
    out : path
        The HTML file.
    photos : ImageSet, optional
        Pictures to explain: all in a table and in groups, the first 20 with tracks and controls.
    probe : ImageSet, optional
        Labelled images on which probabilities are compared with the share of right predictions,
        usually the probe set.
    command : str
        How the report was made, which it quotes.
    compared : mapping, optional
        What `compare` returns for two networks.
    instead_of : int or str, optional
        Class that the decisions passed to `say` are compared with, see `Atlas.explain`.
    say : callable, optional
        Takes name and `Explanation` of each picture, in the default layer of the first network.

    Returns
    -------
    Path
        `out`.
    """
    thumbs: dict[str, str] = {}
    views = [
        _View(f"{name} · {layer}", number, book, record, thumbs)
        for number, (name, book) in enumerate(books.items())
        for layer, record in book.layers.items()
    ]
    first = next(iter(books.values()))
    default = next(one for one in views if one.record is first.layer())
    rival = None if instead_of is None else first.class_index(instead_of)
    pictures = []
    for i in tqdm(range(len(photos or ())), desc="pictures", disable=photos is None):
        image, name = photos.image(i), photos.names[i]
        states = []
        for one in views:
            label = class_name(photos, i, one.book.classes)
            wanted = partial(say, name) if say and one is default else None
            states.append(one.explain(image, label, i, wanted, rival))
        detail = states if i < DETAILED else None
        pictures.append({"name": name, "thumb": _webp(image, 48), "states": detail})
    networks = [
        {"name": name, "classes": book.classes, "count": book.class_count.tolist()}
        | {"calibration": calibration(book, probe), "facts": _facts(book)}
        for name, book in books.items()
    ]
    data = {"views": [one.to_json() for one in views], "pictures": pictures}
    listed = {i for one in data["views"] for own in one["groups"] for i in own["pictures"][:LISTED]}
    for i in {*range(DETAILED, len(pictures))} - listed:
        del pictures[i]["thumb"]
    data |= {"networks": networks, "thumbs": thumbs, "compared": compared}
    out, now = Path(out), datetime.now(UTC).isoformat(timespec="seconds")
    page = {"command": command, "created": now, "books": books, "views": views, "photos": photos}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(_page(data, page), encoding="utf-8")
    made = {"page": out.name, "sha256": file_digest(out), "command": command, "created": now}
    made |= {"networks": {name: _facts(book) for name, book in books.items()}}
    beside = out.with_name(f"{out.stem}-provenance.json")
    beside.write_text(json.dumps(made, indent=2), encoding="utf-8")
    return out


class _View:
    """A layer of a network on the page: its neurons, and its explanation of each picture.

    Parameters
    ----------
    title : str
    number : int
        Of its network.
    book, record : Atlas, LayerRecord
    thumbs : dict
        Of the page, to which those of the layer's exemplars are added.
    """

    def __init__(self, title: str, number: int, book: Atlas, record: LayerRecord, thumbs: dict):
        self.title, self.number, self.book, self.record = title, number, book, record
        self.thumbs, self.class_w, self.kind = thumbs, {}, book.where(record.name)
        self.rows, self.w = [], []  # for each picture: the table's, and contributions (N,)

    def explain(self, image, label: str | None, i: int, say=None, instead_of=None) -> dict | None:
        """Explain picture `i`, to `say` also; return what the controls need.

        Returns None where no map can be drawn, which is an error if there is something to say.
        """
        book, record = self.book, self.record
        if self.kind is None and say is None:
            return None
        label = label if label in book.classes else None
        run = cache(partial(run_model, book.target, record, image, book.signed, self.kind))
        chosen, base = (record, 5, None, label, 90.0, book), run()
        found = make_explanation(base, *chosen)
        if say:
            say(found if instead_of is None else make_explanation(run(instead_of), *chosen))
        order = base.p.argsort(descending=True, stable=True)[:CLASSES].tolist()
        self.w.append(base.w)
        row = {
            "label": label,
            "top": [[c, base.p[c].item()] for c in order],
            "names": [[n.names[0] if n.names else "", n.test] for n in found.sample.neurons],
            "share": found.sample.share,
            "r": found.r_words,
            "warning": found.warning,
        }
        self.rows.append(row)
        return row | self._state(run, order) if i < DETAILED else None

    def _state(self, run: Callable[..., ModelOutput], order: list[int]) -> dict:
        """Return contributions and maps for every choice of classes."""
        book, record, shown, base = self.book, self.record, set(), run()
        rivals = {c: run(c) for c in order[1:]}
        for c in order:
            self.class_w.setdefault(c, _class_side(book, record, c))
        general = {c: self.class_w[c] for c in order if self.class_w[c] is not None}
        weights = [base.w, *(one.w for one in rivals.values()), *general.values()]
        if order[0] in general:
            weights += [general[order[0]] - one for one in general.values()]
        for w in weights:
            order_of = w.nan_to_num(-torch.inf).argsort(descending=True, stable=True)
            shown |= {*order_of[:TRACK].tolist()}
        shown = sorted(shown)
        drawn = {"": base.maps(order[0])}
        if self.kind != ACTIVATION:
            drawn |= {f"class {c}": base.maps(c) for c in general}
            drawn |= {f"rival {c}": one.maps(order[0]) for c, one in rivals.items()}
        return {
            "size": base.image.size,
            "input": _webp(base.image, _SIDE),
            "w": {"": _floats(base.w), **{c: _floats(one.w) for c, one in rivals.items()}},
            "shown": shown,
            "maps": {key: _map(a[0, shown]) for key, a in drawn.items()},
        }

    def to_json(self) -> dict:
        """Return the layer's part of the page, after its pictures."""
        book, record = self.book, self.record
        right_r = [] if record.right_r is None else record.right_r
        share = (record.class_w.abs() / record.class_w.abs().sum(1, True)).nan_to_num(0)
        best, neurons = share.topk(min(TRACK, len(record)), dim=1)
        predicted = [row["top"][0][0] for row in self.rows]
        named = record.major if record.given else record.verified or record.major
        return {
            **{"title": self.title, "network": self.number, "layer": record.name},
            **{"exact": record.exact, "where": self.kind},
            "alpha": book.settings["alpha"][0],
            "right_r": [row[row.isfinite()].round(decimals=5).tolist() for row in right_r],
            "class_w": {c: None if w is None else _floats(w) for c, w in self.class_w.items()},
            "classes": torch.stack([neurons, best], 2).tolist(),
            "neurons": self._neurons(share),
            "rows": self.rows,
            "groups": groups(self.w, named, predicted),
        }

    def _neurons(self, share: Tensor) -> list[list]:
        """Return the neurons, as rows of values to keep the page small."""
        book, record, rows = self.book, self.record, []
        how = record.v, book.t, book.t0, book.words, _ALPHA
        table = record.major if record.given else discover(*how)
        best, classes = share.topk(min(3, len(share)), dim=0)
        verified = record.verified
        for i in range(len(record)):
            strongest = zip(classes[:, i].tolist(), best[:, i].tolist(), strict=True)
            row = [table.names[i][:_NAMES], [round(s, 4) for s in table.scores[i][:_NAMES]]]
            row += [record.major.test_words(i), record.major.supported(i)]
            row += [record.minor.names[i][:4] if record.minor.supported(i) is not False else []]
            row += [self._thumbs(record.exemplars.index[i].tolist(), False)]
            row += [self._thumbs(record.minor_exemplars.index[i].tolist(), True)]
            row += [[[c, s] for c, s in strongest if s > 0]]
            row += [[*verified.names[i][:1], verified.test_words(i)] if verified else []]
            rows.append(row)
        return rows

    def _thumbs(self, indices: list[int], crop: bool) -> list[str]:
        """Return the keys of four thumbnails, which are added to the page."""
        kept = self.book.minor_thumbnails if crop else self.book.thumbnails
        keys = {f"{self.number}{'c' if crop else 'i'}{i}": i for i in indices if i in kept}
        keys = dict(list(keys.items())[:4])
        self.thumbs |= {key: _webp(kept[i]) for key, i in keys.items() if key not in self.thumbs}
        return list(keys)


def groups(w: Sequence[Tensor], table: ConceptTable, predicted: Sequence[int]) -> list[dict]:
    """Group pictures by predicted class, and rank names by what they carry there beyond elsewhere.

    A name's share of a decision is the sum over the neurons with that first name; names that fail
    their test do not count. A shortcut, such as snow for a wolf, is a name that carries more of the
    decisions for one class than of all.

    Parameters
    ----------
    w : sequence of Tensor
        (N,) contributions of N neurons to the decision for each of P pictures.
    table : ConceptTable
        Names of the neurons. Those chosen by test images find more shortcuts, see
        `evaluation.verify`.
    predicted : sequence of int
        The P predicted classes.

    Returns
    -------
    list of dict
        For each predicted class, largest first: "class", "pictures" (indices) and "names", up to
        five of [name, mean share in its pictures, mean share in all], largest difference first.
    """
    first = first_names(table)
    words = sorted({*first} - {""})
    if not len(w) or not words:
        return []
    named = torch.tensor([[name == word for word in words] for name in first]).double()
    w, predicted = torch.stack([*w]).double().nan_to_num(0), torch.as_tensor(predicted)
    carried = torch.nn.functional.normalize(w, 1, 1).abs() @ named
    found, all_of = [], carried.mean(0)
    for c in predicted.unique().tolist():
        own = (predicted == c).nonzero()[:, 0]
        here = carried[own].mean(0)
        best = (here - all_of).argsort(descending=True, stable=True)[:5].tolist()
        names = [[words[j], here[j].item(), all_of[j].item()] for j in best]
        found.append({"class": c, "pictures": own.tolist(), "names": names})
    return sorted(found, key=lambda one: -len(one["pictures"]))


def calibration(book: Atlas, images: ImageSet | None) -> list[list]:
    """Count right predictions by probability.

    Returns
    -------
    list of [low, high, images, right]
        For each interval of probability; empty without labelled images.
    """
    matched = None if images is None else match_labels(images, book.target, warn=False)
    known = [i for i, label in enumerate(matched.labels if matched else ()) if label is not None]
    if not known:
        return []
    some = subset(matched, sorted({known[i * len(known) // _CHECKED] for i in range(_CHECKED)}))
    logits = activations(book.target, some, ["logits"])["logits"].double()
    p, predicted = book.target.probabilities(logits).max(1)
    right, found = predicted == torch.tensor(some.labels), []
    for low, high in pairwise(_LEVELS):
        inside = (p >= low) & ((p < high) | (high == 1))
        found.append([low, high, int(inside.sum()), int(right[inside].sum())])
    return found


def _class_side(book: Atlas, record: LayerRecord, c: int) -> Tensor | None:
    """Return class contributions (N,), or the weights of a linear head that stand in for them."""
    w, head = record.class_w[c], record.head
    if w.isfinite().any() or head is None:
        return w if w.isfinite().any() else None
    return head[c].double() if book.signed else head[c].double().abs()


def _facts(book: Atlas) -> dict[str, str]:
    """Return the provenance of an atlas: what it was computed from."""
    s, test = book.settings, book.settings["test"]
    versions = ", ".join(f"{library} {number}" for library, number in s["versions"].items())
    given = ", ".join(name for name, one in book.layers.items() if one.given)
    return {
        "network": f"{book.target.name}, weights {book.target.digest}",
        "probe set": f"{s['probe']['name']}, {s['probe']['fingerprint']}",
        "tests of names": f"{test['name']}, {test['fingerprint']}" if test else "none",
        "words": f"{len(book.words):,}, {s['words']['digest']}, in {s['words']['template']!r}",
        "image-text encoder": s["encoder"],
        "exemplars per neuron": f"{s['k'][0]} images, {s['k'][1]} crops",
        "alpha": f"{s['alpha'][0]}, for crops {s['alpha'][1]}",
        **({"names given with the directions": given} if given else {}),
        "versions": versions,
    }


def _page(data: Mapping, page: Mapping) -> str:
    """Return the page; its policy allows its own script and style, and images that it contains."""
    parts = {n: Path(__file__).with_suffix(f".{n}").read_text("utf-8") for n in ("css", "js")}
    hashes = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in parts.items()
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    data = require("markupsafe", "explorer").Markup(text)
    made = markup.environment().get_template("report.html")
    return made.render(**page, **parts, hashes=hashes, data=data)


# Values in the page ---------------------------------------------------------------------------


def _webp(picture: Image.Image, side: int = 64) -> str:
    """Return a picture as WebP in base64, with at most so many pixels a side."""
    small, buffer = picture.copy(), io.BytesIO()
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    small.convert("RGB").save(buffer, "WEBP", quality=75 if side > 64 else 60)
    return base64.b64encode(buffer.getvalue()).decode()


def _floats(w: Tensor) -> str:
    """Return numbers as little-endian float32 in base64."""
    return base64.b64encode(w.numpy().astype("<f4").tobytes()).decode()


def _map(a: Tensor) -> dict:
    """Return maps (n, h, w) as 16-bit integers, each with its own scale."""
    a = a.double().numpy()
    peak = np.abs(a).max((1, 2), initial=0)
    whole = np.round(a / np.where(peak > 0, peak, 1)[:, None, None] * 32767).astype("<i2")
    values = base64.b64encode(whole.tobytes()).decode()
    return {"shape": a.shape[1:], "peak": peak.tolist(), "values": values}
