"""The explorer: controls over atlases and their figures, in JupyterLab and, read-only, in Voilà.

`explorer(books, pictures, encoder)` makes the page. What it knows stands in `model`, what it says
in `markup`, and what one can turn in `explorer`.
"""

from wwwlib.explorer.explorer import Explorer, explorer
from wwwlib.explorer.model import Change, Model, NeuronPage, Pictures

__all__ = ["Change", "Explorer", "Model", "NeuronPage", "Pictures", "explorer"]
