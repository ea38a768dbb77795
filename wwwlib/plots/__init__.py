"""Figures of neurons and explanations, in one style for print and for notebooks.

Every function is pure: equal records give equal pixels, independent of matplotlib's settings.
Figures are never shown by themselves; `save` writes one and returns what a notebook displays.
"""

from wwwlib.plots.neurons import failure, two_tracks
from wwwlib.plots.style import Shown, save
