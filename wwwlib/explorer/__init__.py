"""The explorer: an interactive page over atlases, for JupyterLab and, without code, for Voilà.

`explorer(books, pictures, encoder)` makes the page: its state is in `model`, its HTML in `markup`
and ``pages.html``, its widgets in `explorer`. Needs the extra ``explorer``.
"""

from wwwlib.explorer.explorer import Explorer, explorer
from wwwlib.explorer.model import Change, Model, NeuronPage, Pictures
