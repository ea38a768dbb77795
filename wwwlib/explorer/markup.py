"""Records as HTML. Every foreign word is escaped, every picture has a text in its place.

Nothing is said by colour alone: each neuron's picture stands beside its number, each bar beside its
figure. Colours come from the page's own theme where there is one, so that light and dark both work.
"""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

from PIL import Image

from wwwlib.atlas import Atlas, Explanation, Found, Neuron, Track
from wwwlib.maps import agreement, position
from wwwlib.plots.style import number, share
from wwwlib.plots.tiles import heat_tile, picture_tile, region_tile

_SHOWN = 4  # exemplars beside a neuron
STYLE = """<style>
.www, .www * { box-sizing: border-box; }
.www { color: var(--jp-content-font-color1, #1a1a1a); line-height: 1.4; font-size: 14px; }
.www h3 { font-size: 16px; margin: 0.8em 0 0.3em; }
.www h4 { font-size: 14px; margin: 0 0 0.2em; }
.www p { margin: 0.2em 0; }
.www .tracks { display: grid; gap: 1.2em;
  grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); }
.www .neuron { display: flex; align-items: flex-start; gap: 0.8em; padding: 0.6em 0;
  border-top: 1px solid var(--jp-border-color1, #bbb); }
.www .neuron > div { min-width: 0; overflow-wrap: anywhere; }
.www img { display: inline-block; max-width: none; margin: 0 2px 2px 0; background: #fff; }
.www .row { display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-end; }
.www figure { margin: 0; }
.www figcaption { font-size: 13px; }
.www .track { border: 1px solid currentColor; height: 14px; width: 220px; max-width: 100%; }
.www .fill { background: #0072b2; height: 100%; }
.www table { border-collapse: collapse; font-size: 13px; }
.www th, .www td { text-align: left; padding: 2px 10px 2px 0; vertical-align: top;
  border-bottom: 1px solid var(--jp-border-color1, #bbb); overflow-wrap: anywhere; }
.www svg text { fill: currentColor; font-size: 11px; }
.www .scroll { overflow-x: auto; }
</style>"""


def told(*parts: str) -> str:
    """Put parts of a page together, in its style."""
    return f'<div class="www">{"".join(parts)}</div>'


def text(words: object) -> str:
    """Return anybody's words as text of a page, never as its markup."""
    return html.escape(" ".join(str(words).split()), quote=True)


def img(picture: Image.Image, alt: str, width: int | None = None) -> str:
    """Return a picture as part of the page, with a text in its place."""
    size = f' width="{width}"' if width else ""
    return f'<img alt="{text(alt)}"{size} src="{_data(picture)}">'


def _data(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


@lru_cache(maxsize=4096)
def _thumbnail(book: Atlas, i: int, crop: bool) -> str:
    pictures = book.minor_thumbnails if crop else book.thumbnails
    kind = "crop" if crop else "probe image"
    return img(pictures[i], f"{kind} {i}", 44) if i in pictures else ""


def thumbnails(book: Atlas, indices: Iterable[int], crop: bool = False, count: int = _SHOWN) -> str:
    """Return the first pictures of exemplars, or of crops, that the atlas keeps."""
    found = (_thumbnail(book, i, crop) for i in indices)
    return "".join([one for one in found if one][:count])


def listed(names: Sequence[str], least: str = "no concept") -> str:
    """Return concepts as text."""
    return ", ".join(f"<b>{text(name)}</b>" for name in names) or least


# An explanation --------------------------------------------------------------------------------


def explanation(found: Explanation, book: Atlas) -> str:
    """Tell what, where and why, and how sure one may be."""
    places = {
        index: place
        for place, index in enumerate(
            dict.fromkeys(n.index for track in (found.cls, found.sample) for n in track.neurons)
        )
    }
    count = int(book.class_count[found.cls.class_index])
    general = f"Class: {found.cls.class_name}, from {count:,} image{'s' * (count != 1)}"
    tracks = ((found.cls, general), (found.sample, "Sample: this prediction"))
    return told(
        _prediction(found),
        '<div class="tracks">',
        *(_track(track, title, found, book, places) for track, title in tracks),
        "</div>",
        "<h3>Where, in all</h3>",
        _heatmaps(found),
    )


def _prediction(found: Explanation) -> str:
    if found.label is None:
        truth = "The true class is not known."
    elif found.label == found.predicted_name:
        truth = "That is right."
    else:
        truth = f"That is wrong: it is <b>{text(found.label)}</b>."
    picture = img(picture_tile(found.image, 128), "the picture as the network saw it")
    said = f"Predicted: {text(found.predicted_name)}, {share(found.probability)}"
    return (
        f'<div class="row">{picture}<div><h3>{said}</h3><p>{truth}</p>{gauge(found.r)}</div></div>'
    )


def gauge(r: float) -> str:
    """Draw the similarity of the two heatmaps, in figure, bar and words."""
    if math.isnan(r):
        return "<p>Class and sample cannot be compared here.</p>"
    words = f"r = {number(r)}: class and sample {agreement(r)}"
    width = 100 * min(max(r, 0.0), 1.0)
    return (
        f'<p>{words}</p><div class="track" role="img" aria-label="{words}, on a scale to 1">'
        f'<div class="fill" style="width:{width:.0f}%"></div></div>'
        "<p>A low r means doubt.</p>"
    )


def _track(track: Track, title: str, found: Explanation, book: Atlas, places: dict) -> str:
    neurons = "".join(_neuron(n, found, book, places[n.index]) for n in track.neurons)
    nothing = "<p>Of this class there are no images, so nothing is known in general.</p>"
    return f"<section><h3>{text(title)}</h3>{neurons or nothing}</section>"


def _neuron(neuron: Neuron, found: Explanation, book: Atlas, place: int) -> str:
    at = position(neuron.region)
    half = at in ("upper", "lower", "left", "right", "middle")  # adjectives want a noun
    where = f"looked at the {at}{' part' * half}" if at else "is silent in this picture"
    tile = region_tile(found.image, neuron.region, place, 120)
    names = listed(neuron.names) + ("" if neuron.sure else " (not sure)")
    return (
        f'<div class="neuron">{img(tile, f"neuron {neuron.index} {where}")}<div>'
        f"<h4>Neuron {neuron.index} carries {share(neuron.contribution)}</h4>"
        f"<p>{names}; {where}</p><p>{thumbnails(book, neuron.exemplars)}</p>"
        f"<p>in parts: {listed(neuron.minor[:4])}</p>"
        f"<p>{thumbnails(book, neuron.minor_exemplars, crop=True)}</p></div></div>"
    )


def _heatmaps(found: Explanation) -> str:
    tracks = ((found.cls, "class"), (found.sample, "sample"))
    tiles = [(heat_tile(found.image, track.heatmap), name) for track, name in tracks]
    figures = (
        f"<figure>{img(tile, f'heatmap of the {name}')}<figcaption>{name}</figcaption></figure>"
        for tile, name in tiles
    )
    note = "<p>Bright is where the neurons above looked most, dark where they did not.</p>"
    return f'<div class="row">{"".join(figures)}</div>{note}'


# A neuron, a search, a change ------------------------------------------------------------------


def neuron_page(page, book: Atlas) -> str:
    """Tell all that is known of a neuron."""
    parts = [f"<h3>Neuron {page.index} of {text(page.layer)}</h3>"]
    if page.stability is not None:
        parts.append(
            f"<p>{share(page.stability)} of resampled probe sets give it the same first name.</p>"
        )
    parts += [
        _scored("Major concepts, from whole images", page.names),
        f"<p>{thumbnails(book, page.exemplars, count=8)}</p>",
        distribution(page),
        _scored("Minor concepts, from crops", page.minor[:6]),
        f"<p>{thumbnails(book, page.minor_exemplars, crop=True, count=8)}</p>",
        _scored("Classes that rely on it", page.classes, share, "none"),
    ]
    return told(*parts)


def _scored(title: str, rows: Sequence[tuple[str, float]], form=None, nothing="no concept") -> str:
    form = form or (lambda value: f"{value:.3f}")
    body = "".join(f"<tr><td>{text(name)}</td><td>{form(value)}</td></tr>" for name, value in rows)
    return f"<h4>{title}</h4>" + (f"<table>{body}</table>" if rows else f"<p>{nothing}</p>")


def distribution(page, width: int = 360, height: int = 90, bins: int = 40) -> str:
    """Draw how the scores of all concepts are spread, and where the threshold lies."""
    scores = page.scores[page.scores.isfinite()].double()
    if not len(scores):
        return ""
    low, high = scores.min().item(), scores.max().item()
    span = (high - low) or 1.0
    counts = scores.histc(bins, low, low + span).tolist()
    bars = "".join(
        f'<rect x="{i * width / bins:.1f}" y="{height * (1 - (n / max(counts)) ** 0.5):.1f}" '
        f'width="{width / bins - 1:.1f}" height="{height * (n / max(counts)) ** 0.5:.1f}" '
        'fill="#0072b2"/>'
        for i, n in enumerate(counts)
        if n
    )
    kept = int((scores >= page.threshold).sum()) if not math.isnan(page.threshold) else 0
    words = f"Scores of {len(scores):,} concepts from {low:.2f} to {high:.2f}; " + (
        f"{kept:,} reach the threshold {page.threshold:.3f}" if kept else "none is kept"
    )
    line = ""
    if kept:
        x = width * (page.threshold - low) / span
        line = (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}" stroke="currentColor" '
            'stroke-width="2" stroke-dasharray="4 3"/>'
        )
    return (
        f'<svg role="img" aria-label="{text(words)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" style="max-width:100%">{bars}{line}</svg><p>{text(words)}'
        f"{' (dashed line)' if kept else ''}. Heights are square roots of counts.</p>"
    )


def found_neurons(word: str, found: Sequence[Found], book: Atlas) -> str:
    """Tell which neurons stand for a word."""
    if not found:
        return told(f"<p>No neuron stands for <b>{text(word)}</b>.</p>")
    rows = "".join(
        f"<tr><td>{text(one.layer)}, neuron {one.index}</td>"
        f"<td>{one.score:.3f}, {share(one.share)} of its best</td><td>{listed(one.names)}</td>"
        f"<td>{thumbnails(book, book.layer(one.layer).exemplars.index[one.index].tolist())}</td>"
        "</tr>"
        for one in found
    )
    head = "<tr><th>where</th><th>score</th><th>its own names</th><th>exemplars</th></tr>"
    return told(
        f"<h3>Neurons nearest to {text(word)}</h3>",
        f'<div class="scroll"><table>{head}{rows}</table></div>',
    )


def compared(before, after, book: Atlas) -> str:
    """Tell what a change did: both pictures, and what was predicted of each."""
    figures = "".join(
        f"<figure>{img(picture_tile(one.image, 128), f'the picture {name}')}"
        f"<figcaption>{name}: <b>{text(book.classes[one.predicted])}</b>, "
        f"{share(one.p[one.predicted].item())}</figcaption></figure>"
        for one, name in ((before, "before"), (after, "now"))
    )
    first = before.predicted
    fell = f"{share(before.p[first].item())} before, {share(after.p[first].item())} now"
    return told(
        f'<div class="row">{figures}</div>',
        f"<p>Probability of {text(book.classes[first])}: {fell}.</p>",
    )


def failure(error: object) -> str:
    """Say what went wrong."""
    return told(f'<p role="alert"><b>That did not work.</b> {text(error)}</p>')
