"""Figures of studies: measurements over many neurons, images or methods, and pages of examples."""

from wwwlib.studies.figures.curves import rejection, risk, selection, sweep
from wwwlib.studies.figures.galleries import called, demonstration, failures, masks
from wwwlib.studies.figures.measurements import (
    approximation,
    contributions,
    histograms,
    intervals,
    localization,
    looks,
    methods,
    set_sizes,
)
from wwwlib.studies.figures.pictures import heatmaps, minor, neurons, samples, where
