"""What one can turn, and what it is called. A control knows nothing of what follows from it."""

import ipywidgets as w

from wwwlib import world
from wwwlib.explorer import markup
from wwwlib.explorer.model import Model
from wwwlib.world.vocabulary import FINISHES

AS_IS = "as it is"
_WIDE = {"description_width": "130px"}


def make(model: Model) -> dict[str, w.Widget]:
    """Make all controls; the words beside them say what they do."""
    fixed = {"continuous_update": True, "style": _WIDE}
    made = {
        "network": choice("Network", list(model.books), "The network to be explained"),
        "layer": choice(
            "Layer", list(model.book.layers), "The layer whose neurons speak", model.layer
        ),
        "source": choice("Pictures", list(model.pictures), "Where pictures come from"),
        "upload": w.FileUpload(
            accept="image/*", multiple=False, description="Your own picture",
            tooltip="A picture from your disk; it stays on this machine",
            layout=w.Layout(width="220px"),
        ),
        "earlier": w.Button(description="Earlier pictures", tooltip="Eight pictures back"),
        "later": w.Button(description="Later pictures", tooltip="Eight pictures on"),
        "cls": choice("Why not", [("the predicted class", None)], "Compare with this class"),
        "top": w.IntSlider(3, 1, 8, description="Neurons a track, k", **fixed),
        "percentile": w.IntSlider(90, 50, 99, description="Region, percentile", **fixed),
        "alpha": w.FloatSlider(
            value=model.alpha, min=0.5, max=1.0, step=0.01, description="Names, alpha", **fixed
        ),
        "neuron": w.BoundedIntText(
            value=0, max=len(model.record) - 1, description="Neuron", style=_WIDE
        ),
        "word": w.Text(description="Word", placeholder="such as sail", style=_WIDE),
        "find": w.Button(description="Find neurons", tooltip="Neurons that stand for the word"),
        "scene": choice("Scene", [AS_IS, *world.SCENES], "Put it somewhere else"),
        "finish": choice("Texture", [AS_IS, *FINISHES], "Paint it with something else"),
        "parts": w.SelectMultiple(description="Take away", rows=4, style=_WIDE),
        "thing": w.Checkbox(value=True, description="keep the thing beside it"),
        "restore": w.Button(description="As it was", tooltip="Undo all changes"),
    }  # fmt: skip
    for name, control in made.items():
        control.add_class(f"www-{name}")
    return made


def choice(description: str, options: list, tooltip: str, *value: str) -> w.Dropdown:
    """Make a list to choose from, by default its first entry."""
    return w.Dropdown(
        options=options,
        **({"value": value[0]} if value else {}),
        description=description,
        tooltip=tooltip,
        style=_WIDE,
        layout=w.Layout(width="330px"),
    )


def html(name: str) -> w.HTML:
    """Make a place for a part of the page."""
    made = w.HTML()
    made.add_class(f"www-{name}")
    return made


def title(words: str) -> w.HTML:
    """Make a heading."""
    return w.HTML(markup.told(f"<h3>{words}</h3>"))
