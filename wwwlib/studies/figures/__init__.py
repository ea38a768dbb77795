"""Figures of studies: measurements over many neurons, images or methods, and pages of examples."""

from wwwlib.studies.figures.curves import approximation, rejection, risk, selection, sweep
from wwwlib.studies.figures.files import Shown, save
from wwwlib.studies.figures.galleries import called, demonstration, failure, failures
from wwwlib.studies.figures.measurements import contributions, histograms, intervals, localization
from wwwlib.studies.figures.pictures import heatmaps, minor, neurons, samples, where
