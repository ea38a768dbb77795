"""Parts of the explorer's page as HTML, from the templates in ``pages.html``.

Names of concepts, classes and files are arbitrary strings; the templates escape them all.
"""

import base64
import io
import math
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from wwwlib.atlas import Atlas, Explanation
from wwwlib.atlas.explain import ModelOutput, region_words
from wwwlib.plots.page import heated, paled, pixels
from wwwlib.plots.style import look, share
from wwwlib.registry import require

_TURNS = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F), "\ufffd")
_BINS, _WIDTH, _HEIGHT = 40, 360, 90  # of the histogram of scores, as in its template


@cache
def environment() -> Any:
    """Return the environment of all templates, which escapes every value."""
    jinja2 = require("jinja2", "explorer")
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    made = jinja2.Environment(loader=loader, autoescape=True, finalize=_without_turns)
    used = (heat_tile, img, picture_tile, region_tile, region_words, share, thumbnails)
    made.globals |= {one.__name__: one for one in used} | {"three_digits": "{:.3f}".format}
    return made


def _without_turns(value: object) -> object:
    """Replace characters that turn the direction of the text around them."""
    return value.translate(_TURNS) if isinstance(value, str) else value


@cache
def templates() -> Any:
    """Return the macros of ``pages.html`` as functions."""
    return environment().get_template("pages.html").module


def img(picture: Image.Image, alt: str, width: int | None = None) -> str:
    """Return an image element with its data and an alternative text."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    element, words = require("markupsafe", "explorer").Markup, " ".join(alt.split())
    whole = element('<img alt="{}"{} src="data:image/png;base64,{}">')
    return whole.format(words, element(f' width="{width}"' if width else ""), data)


@lru_cache(maxsize=4096)
def _thumbnail(atlas: Atlas, i: int, crop: bool) -> str:
    pictures = atlas.minor_thumbnails if crop else atlas.thumbnails
    return img(pictures[i], f"{'crop' if crop else 'probe image'} {i}", 44) if i in pictures else ""


def thumbnails(atlas: Atlas, indices: Iterable[int], crop: bool = False, count: int = 4) -> str:
    """Return the first `count` thumbnails of exemplars, or of crops, that the atlas has."""
    found = [one for i in indices if (one := _thumbnail(atlas, i, crop))]
    return require("markupsafe", "explorer").Markup("").join(found[:count])


def explanation(found: Explanation, atlas: Atlas) -> str:
    """Return an explanation: prediction, both tracks, and their heatmaps."""
    shown = [neuron.index for track in (found.cls, found.sample) for neuron in track.neurons]
    outlines = {index: place for place, index in enumerate(dict.fromkeys(shown))}
    count = int(atlas.class_count[found.cls.class_index])
    return templates().explanation(found, atlas, count, outlines)


def neuron_page(page: Any, atlas: Atlas) -> str:
    """Return the page of a neuron, a `NeuronPage`."""
    return templates().neuron_page(page, atlas, histogram(page))


def histogram(page: Any) -> tuple[list[tuple[float, float]], float | None, str]:
    """Compute the histogram of a neuron's scores, with square-root heights.

    Returns
    -------
    bars : list of (x, height)
    line : float or None
        Position of the threshold.
    words : str
        A description.
    """
    scores = page.scores[page.scores.isfinite()].double()
    if not len(scores):
        return [], None, ""
    low, high = scores.min().item(), scores.max().item()
    span = (high - low) or 1.0
    counts = scores.histc(_BINS, low, low + span)
    heights = (_HEIGHT * (counts / counts.max()).sqrt()).tolist()
    bars = [(i * _WIDTH / _BINS, height) for i, height in enumerate(heights) if height]
    words = f"Scores of {len(scores):,} concepts from {low:.2f} to {high:.2f}; "
    if math.isnan(page.threshold):
        return bars, None, f"{words}none is selected"
    words += f"{int((scores >= page.threshold).sum()):,} reach the threshold {page.threshold:.3f}"
    return bars, _WIDTH * (page.threshold - low) / span, words


def compared(before: Explanation, after: Explanation, output: ModelOutput) -> str:
    """Return the effect of a change: pictures, predictions, heatmaps, r, and neurons' shares."""
    both = [{n.index: n for n in one.sample.neurons} for one in (before, after)]
    p = output.p[before.predicted].item()
    return templates().compared(before, after, p, both, both[0] | both[1])


# Small pictures without text, drawn in milliseconds


def region_tile(image: Any, region: Any, place: int = 0, side: int = 160) -> Image.Image:
    """Draw an image, paled, with a region in its own colours and an outline around it.

    Parameters
    ----------
    image : PIL image of W x H pixels
    region : array of bool, shape (H, W)
    place : int
        Which neuron's colour the outline has, see `style.look`.
    side : int
        Pixels of the longer side of the result.
    """
    from scipy.ndimage import binary_dilation

    shown = picture_tile(image, side)
    inside = Image.fromarray(np.asarray(region, bool)).resize(shown.size, Image.Resampling.NEAREST)
    inside = np.asarray(inside)
    drawn = np.where(inside[..., None], pixels(shown), paled(shown, 0.3))
    drawn[binary_dilation(inside, iterations=4) & ~inside] = 255
    drawn[binary_dilation(inside, iterations=3) & ~inside] = np.array(to_rgb(look(place)[0])) * 255
    return Image.fromarray(drawn.round().astype(np.uint8))


def heat_tile(image: Any, heatmap: Any, side: int = 160) -> Image.Image:
    """Draw an image in grey under a heatmap (H, W), its zero dark and its maximum bright."""
    return picture_tile(heated(image, heatmap), side)


def picture_tile(image: Any, side: int = 160) -> Image.Image:
    """Draw an image with `side` pixels on its longer side."""
    image = Image.fromarray(pixels(image))
    scale = side / max(image.size)
    size = tuple(max(1, round(length * scale)) for length in image.size)
    return image.resize(size, Image.Resampling.BICUBIC)
