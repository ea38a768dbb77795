"""A record in, a figure out: one style, made for print, for the page and for every pair of eyes.

Every function is pure: equal records give equal pixels, whatever else matplotlib was told. Figures
are never shown by themselves; `save` writes one and returns what a notebook displays.
"""

from wwwlib.plots.grid import heatmaps
from wwwlib.plots.naming import hits, minor, neurons, selection, set_sizes
from wwwlib.plots.pictures import masks, samples
from wwwlib.plots.show import Shown, save
from wwwlib.plots.tracks import failure, two_tracks
from wwwlib.plots.where import where

__all__ = [
    "Shown",
    "failure",
    "heatmaps",
    "hits",
    "masks",
    "minor",
    "neurons",
    "samples",
    "save",
    "selection",
    "set_sizes",
    "two_tracks",
    "where",
]
