"""One style for every figure: colours, sizes, and how other people's words are set in type.

Colours are Okabe and Ito's, which colour-blind readers can tell apart, and no meaning rests on
colour alone: beside it stands a line style, a symbol or a word. Concept, class and file names are
foreign strings. They are drawn letter by letter, never read as formulas.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, wraps

from matplotlib import font_manager, style
from matplotlib.figure import Figure

FONT = "DejaVu Sans"  # comes with matplotlib, so every machine draws the same pixels
WIDTH = 7.0  # inches: a page's text width, at which every font size below is the printed size
SMALL, BODY, HEAD = 8, 9, 10.5  # points
DPI = 150

INK, GREY, RULE, PAPER = "#1a1a1a", "#5c5c5c", "#c8c8c8", "#fdfdfb"
BLUE, ORANGE, GREEN, VERMILION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY = "#cc79a7", "#56b4e9"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (2, 2)))
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
HEAT = "viridis"

_STYLE = {
    "figure.dpi": DPI,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": BODY,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": BODY,
    "axes.grid": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,
    "font.family": FONT,
    "font.size": BODY,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "pdf.fonttype": 42,  # real letters in the PDF, which can be searched and copied
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
}


def in_style():
    """Return the context in which figures are drawn: this style, whatever the user has set."""
    return style.context(["default", _STYLE])


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Make a function draw its figure in this style, and finish it there.

    The layout is settled before the figure leaves, so that no later setting can change it.
    """

    @wraps(draw)
    def drawn(*args, **kwargs):
        with in_style():
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()
        return figure

    return drawn


def literal(words) -> str:
    """Return a foreign string as it can be drawn: one line, every letter in the font.

    Line breaks become spaces, invisible marks vanish, and a letter that the font lacks becomes a
    box, which is what a reader expects in its place.
    """
    seen = []
    for letter in str(words):
        category = unicodedata.category(letter)
        if letter.isspace() or category == "Cc":
            seen.append(" ")
        elif category != "Cf":
            seen.append(letter if ord(letter) in _letters() else "□")
    return " ".join("".join(seen).split())


def fit(words, width: float, size: float = SMALL, bold: bool = False, lines: int = 1) -> list[str]:
    """Break a foreign string into at most `lines` lines of `width` inches.

    A word that is wider than a line is broken, and what does not fit ends in an ellipsis.
    """
    rest, broken = literal(words), []
    while rest and len(broken) < lines:
        last = len(broken) == lines - 1
        line = _line(rest, width, size, bold, "…" if last else "")
        broken.append(line)
        rest = "" if last else rest[len(line) :].lstrip()
    return broken or [""]


def listing(words: Sequence, width: float, lines: int = 1, size: float = SMALL) -> list[str]:
    """Break a list of names into lines, leaving out whole names and saying how many."""
    words = [literal(word) for word in words]
    for kept in range(len(words), 0, -1):
        left_out = f" +{len(words) - kept} more" if kept < len(words) else ""
        broken = fit(", ".join(words[:kept]) + left_out, width, size, lines=lines)
        if not broken[-1].endswith("…"):
            return broken
    if len(words) < 2:
        return fit(", ".join(words), width, size, lines=lines)
    left_out = f" +{len(words) - 1} more"
    broken = fit(words[0], width, size, lines=lines)
    return [*broken[:-1], fit(broken[-1], width - measure(left_out, size), size)[0] + left_out]


def measure(words: str, size: float = SMALL, bold: bool = False) -> float:
    """Return the width of a line in inches."""
    return _face(bold, size)(words)


def number(value: float, digits: int = 2) -> str:
    """Return a number as the figures write it, with a real minus sign and no signed zero."""
    shown = f"{value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "\N{MINUS SIGN}")


def share(value: float) -> str:
    """Return a share of one as a percentage."""
    return f"{number(100 * value, 0)} %"


def _line(rest: str, width: float, size: float, bold: bool, ending: str) -> str:
    """Return as much of `rest` as fits, broken at a space where there is one."""
    if measure(rest, size, bold) <= width:
        return rest
    low, high = 1, len(rest)
    while low < high:
        middle = (low + high + 1) // 2
        if measure(rest[:middle].rstrip() + ending, size, bold) <= width:
            low = middle
        else:
            high = middle - 1
    if ending:  # nothing follows, so letters count more than whole words
        return rest[:low].rstrip(" ,") + ending
    space = rest.rfind(" ", 0, low + 1)
    return rest[: space if space > 0 else low]


@cache
def _font(bold: bool):
    weight = "bold" if bold else "normal"
    return font_manager.get_font(
        font_manager.findfont(font_manager.FontProperties(family=FONT, weight=weight))
    )


@cache
def _letters() -> frozenset[int]:
    """Return the letters that both weights of the font have."""
    return frozenset(_font(False).get_charmap()) & frozenset(_font(True).get_charmap())


@cache
def _face(bold: bool, size: float) -> Callable[[str], float]:
    font = _font(bold)

    @cache
    def width(words: str) -> float:
        font.set_size(size, DPI)
        font.set_text(words, 0.0)
        return font.get_width_height()[0] / 64 / DPI

    return width
