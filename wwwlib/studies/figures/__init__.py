"""Figures of studies: measurements over many neurons, images or methods."""

from wwwlib.studies.figures.called import called
from wwwlib.studies.figures.demonstration import demonstration
from wwwlib.studies.figures.gallery import failures
from wwwlib.studies.figures.measures import approximation, contributions, localization
from wwwlib.studies.figures.reliability import histograms, intervals, rejection, risk, sweep
from wwwlib.studies.figures.tables import methods

__all__ = [
    "approximation",
    "called",
    "contributions",
    "demonstration",
    "failures",
    "histograms",
    "intervals",
    "localization",
    "methods",
    "rejection",
    "risk",
    "sweep",
]
