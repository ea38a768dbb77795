"""A record in, a figure out: one style, made for print, for the page and for every pair of eyes.

Every function is pure: equal records give equal pixels, whatever else matplotlib was told. Figures
are never shown by themselves; `save` writes one and returns what a notebook displays.
"""

from wwwlib.figures.grid import heatmaps
from wwwlib.figures.measures import approximation, contributions, localization
from wwwlib.figures.naming import hits, minor, neurons, selection, set_sizes
from wwwlib.figures.pictures import masks, samples
from wwwlib.figures.show import Shown, save
from wwwlib.figures.tables import methods
from wwwlib.figures.tracks import failure, two_tracks
from wwwlib.figures.where import where

__all__ = [
    "Shown",
    "approximation",
    "contributions",
    "failure",
    "heatmaps",
    "hits",
    "localization",
    "masks",
    "methods",
    "minor",
    "neurons",
    "samples",
    "save",
    "selection",
    "set_sizes",
    "two_tracks",
    "where",
]
