"""One style for every figure: colours, sizes, and measured text.

Colours come from Okabe and Ito's palette, which remains distinguishable under colour blindness,
and no meaning rests on colour alone: a line style, a marker or a word repeats it. Concept, class
and file names are arbitrary strings: they are drawn literally, never parsed as formulas.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, wraps
from pathlib import Path
from typing import Any

from matplotlib import font_manager, style
from matplotlib.figure import Figure

FONT = "DejaVu Sans"  # ships with matplotlib, so that every machine draws the same pixels
WIDTH = 7.0  # inches: the text width of a page, at which font sizes are the printed sizes
SMALL, BODY, HEAD = 8, 9, 10.5  # points
DPI = 150

INK, GREY, RULE = "#1a1a1a", "#5c5c5c", "#c8c8c8"
BLUE, ORANGE, GREEN, VERMILION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY = "#cc79a7", "#56b4e9"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "#332288", "#8c5a2b", "#882255", "#999933")
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (2, 2)))
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
HEAT = "viridis"


def in_style() -> Any:
    """Return the context in which figures are drawn: this style, independent of user settings."""
    return style.context(["default", Path(__file__).with_suffix(".mplstyle")])


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorate a function to draw its figure in this style.

    The layout is computed before the figure is returned, so that later settings cannot change it.
    """

    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Figure:
        with in_style():
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()
        return figure

    return drawn


def look(place: int) -> tuple:
    """Return colour and line style of series number `place`; the first 60 pairs are distinct."""
    return SERIES[place % len(SERIES)], LINES[(place + place // len(SERIES)) % len(LINES)]


# Text -------------------------------------------------------------------------------------------


def literal(words: object) -> str:
    """Return a string as one line: line breaks become spaces, invisible characters are removed.

    For a character that the font lacks, matplotlib warns and draws a box.
    """
    invisible = ("Cf", "Cs")  # format characters and lone surrogates
    shown = "".join(one for one in str(words) if unicodedata.category(one) not in invisible)
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", shown).split())


def fit(
    words: Any, width: float, size: float = SMALL, bold: bool = False, lines: int = 1
) -> list[str]:
    """Break a string into at most `lines` lines of `width` inches.

    A word wider than a line is broken; what does not fit is replaced by an ellipsis.
    """
    rest, broken = literal(words), list[str]()
    while rest and len(broken) < lines:
        last = len(broken) == lines - 1
        line = _line(rest, width, size, bold, "…" if last else "")
        broken.append(line)
        rest = "" if last else rest[len(line) :].lstrip()
    return broken or [""]


def listing(words: Sequence, width: float, lines: int = 1, size: float = SMALL) -> list[str]:
    """Break a list of names into lines, leaving out whole names and stating how many."""
    words = [literal(word) for word in words]
    for kept in range(len(words), 0, -1):
        left_out = f" +{len(words) - kept} more" if kept < len(words) else ""
        broken = fit(", ".join(words[:kept]) + left_out, width, size, lines=lines)
        if not broken[-1].endswith("…"):
            return broken
    if len(words) < 2:
        return fit(", ".join(words), width, size, lines=lines)
    *broken, last = fit(words[0], width, size, lines=lines)
    return [*broken, fit(last, width - measure(left_out, size), size)[0] + left_out]


@lru_cache(maxsize=20_000)
def measure(words: str, size: float = SMALL, bold: bool = False) -> float:
    """Return the width of a line of text in inches."""
    font = _font(bold)
    font.set_size(size, DPI)
    font.set_text(words, 0.0)
    return font.get_width_height()[0] / 64 / DPI


def number(value: float, digits: int = 2) -> str:
    """Return a number as text, with a true minus sign and no signed zero."""
    shown = f"{value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "\N{MINUS SIGN}")


def share(value: float) -> str:
    """Return a fraction as a percentage."""
    return f"{number(100 * value, 0)} %"


def _line(rest: str, width: float, size: float, bold: bool, ending: str) -> str:
    """Return as much of `rest` as fits, broken at a space where there is one."""
    if measure(rest, size, bold) <= width:
        return rest

    def wide(count: int) -> float:
        return measure(rest[:count].rstrip() + ending, size, bold)

    count = max(1, bisect_right(range(1, len(rest)), width, key=wide))
    if ending:  # nothing follows: keep letters rather than whole words
        return rest[:count].rstrip(" ,") + ending
    space = rest.rfind(" ", 0, count + 1)
    return rest[: space if space > 0 else count]


@cache
def _font(bold: bool) -> Any:
    wanted = font_manager.FontProperties(family=FONT, weight="bold" if bold else "normal")
    return font_manager.get_font(font_manager.findfont(wanted))
