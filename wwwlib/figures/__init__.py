"""A record in, a figure out: one style, made for print, for the page and for every pair of eyes.

Every function is pure: equal records give equal pixels, whatever else matplotlib was told. Figures
are never shown by themselves; `save` writes one and returns what a notebook displays.
"""

from wwwlib.figures.called import called
from wwwlib.figures.demonstration import demonstration
from wwwlib.figures.gallery import failures
from wwwlib.figures.grid import heatmaps
from wwwlib.figures.measures import approximation, contributions, localization
from wwwlib.figures.naming import hits, minor, neurons, selection, set_sizes
from wwwlib.figures.pictures import masks, samples
from wwwlib.figures.reliability import histograms, intervals, rejection, risk, sweep
from wwwlib.figures.show import Shown, save
from wwwlib.figures.tables import methods
from wwwlib.figures.tracks import failure, two_tracks
from wwwlib.figures.where import where

__all__ = [
    "Shown",
    "approximation",
    "called",
    "contributions",
    "demonstration",
    "failure",
    "failures",
    "heatmaps",
    "histograms",
    "hits",
    "intervals",
    "localization",
    "masks",
    "methods",
    "minor",
    "neurons",
    "rejection",
    "risk",
    "samples",
    "save",
    "selection",
    "set_sizes",
    "sweep",
    "two_tracks",
    "where",
]
