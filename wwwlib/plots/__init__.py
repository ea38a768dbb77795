"""Figures of neurons and explanations, in one style for print and for notebooks.

Every function is pure: equal records give equal pixels, independent of matplotlib's settings.
Figures are never shown by themselves; `studies.figures.save` writes one for a notebook.
"""

from wwwlib.plots.neurons import two_tracks
