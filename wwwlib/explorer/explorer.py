"""The explorer: choose a picture, a class, a neuron or a word, and see the explanation change.

Plain ipywidgets over a `Model`; every control changes one choice, and the parts of the page that
depend on it are rendered again. Each part has its own CSS class, such as ``www-alpha``.
"""

from collections.abc import Callable, Mapping
from functools import partial

import ipywidgets as w

from wwwlib import world
from wwwlib.atlas import Atlas
from wwwlib.explorer import markup
from wwwlib.explorer.model import Change, Model, Pictures
from wwwlib.images import ImageSet
from wwwlib.language import Encoder

UNCHANGED = "as it is"
_STRIP = 8  # thumbnails at once
_STYLE = {"description_width": "130px"}
_WRAP = {"flex_flow": "row wrap"}
_REPAINTED = ("scene", "finish", "parts", "thing")  # the controls that change a scene
_COVERED = ("across", "down")  # those that cover a box of any picture


def explorer(
    books: Mapping[str, Atlas],
    pictures: Mapping[str, Pictures | ImageSet],
    encoder: Encoder | None = None,
) -> "Explorer":
    """Make the explorer of one or more atlases.

    Parameters
    ----------
    books : dict of str to Atlas
        Networks to choose from, by the names that the page shows.
    pictures : dict of str to Pictures or ImageSet
        Sets of images to choose from.
    encoder : Encoder, optional
        The encoder that the atlases were built with, to search for words.
    """
    sets = {n: p if isinstance(p, Pictures) else Pictures(p) for n, p in pictures.items()}
    return Explorer(Model(books, sets, encoder))


class Explorer(w.VBox):
    """The page: controls above, results below.

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model: Model):
        self.model, self.first, self.quiet = model, 0, False
        self.message = _html("message")
        made = self.choices = _controls(model)
        self._connect(made)
        self.strip = w.HBox([self._tile(i) for i in range(_STRIP)], layout=w.Layout(**_WRAP))
        self.explanation, self.change_result = _html("explanation"), _html("changed")
        self.neuron_page, self.matches = _html("neuron-page"), _html("found")
        style = w.HTML(markup.templates().style())
        top = [style, self._row("network", "layer", "source", "upload")]
        strip = [w.HBox([made["earlier"], made["later"]]), self.strip]
        settings = self._row("cls", "instead", "top", "percentile", "alpha")
        self.repaint = self._row(*_REPAINTED)
        changes = [self.repaint, self._row(*_COVERED), made["restore"], self.change_result]
        change = _section("Change the picture", changes)
        neuron = _section("A neuron", [made["neuron"], self.neuron_page])
        search = _section("Search", [w.HBox([made["word"], made["find"]]), self.matches])
        results = [self.message, settings, self.explanation, change, neuron, search]
        super().__init__([*top, *strip, *results])
        self.add_class("www-explorer")
        self._show_strip()
        self._picture_changed()
        self._update()

    def _connect(self, made: dict[str, w.Widget]) -> None:
        """Connect every control with the choice that it changes."""
        on = {
            "network": self._choose_network,
            "layer": self._choose_layer,
            "source": self._choose_source,
            "upload": self._choose_upload,
            "percentile": lambda value: setattr(self.model, "percentile", float(value)),
            "neuron": lambda value: None,
            **dict.fromkeys((*_REPAINTED, *_COVERED), self._choose_change),
        }
        on |= {n: partial(setattr, self.model, n) for n in ("cls", "instead", "top", "alpha")}
        for name, choose in on.items():
            made[name].observe(self._handler(choose, name), "value")
        made["earlier"].on_click(lambda _: self._turn(-_STRIP))
        made["later"].on_click(lambda _: self._turn(_STRIP))
        made["find"].on_click(lambda _: self._find())
        made["word"].observe(lambda _: self._find(), "value")
        made["word"].continuous_update = False
        made["restore"].on_click(lambda _: self._restore())

    def _row(self, *names: str) -> w.HBox:
        return w.HBox([self.choices[name] for name in names], layout=w.Layout(**_WRAP))

    # Events -------------------------------------------------------------------------------

    def _handler(self, choose: Callable, name: str) -> Callable:
        """Return a handler that changes a choice and updates what depends on it."""

        def handle(change) -> None:
            if self.quiet:
                return
            try:
                choose(change["new"])
            except ValueError as error:
                self.message.value = markup.templates().failure(error)
            else:
                self._update_neuron() if name == "neuron" else self._update()

        return handle

    def _choose_network(self, name: str) -> None:
        self.model.choose_network(name)
        layer = self.model.layer
        self._set("layer", options=list(self.model.book.layers), value=layer)
        self._choose_layer(layer)

    def _choose_layer(self, name: str) -> None:
        self.model.layer = name
        self._set("neuron", max=len(self.model.record) - 1)

    def _choose_source(self, name: str) -> None:
        self.first = 0
        self.model.choose_image(name, 0)
        self._picture_changed()
        self._show_strip()

    def _choose_upload(self, files) -> None:
        if files:
            self._set("upload", value=())  # so that the same file can be chosen again
            self.model.choose_upload(bytes(files[0]["content"]))
            self._picture_changed()

    def _choose_image(self, index: int) -> None:
        self.model.choose_image(self.model.source, index)
        self._picture_changed()
        self._update()

    def _choose_change(self, _) -> None:
        chosen = (self.choices[name].value for name in (*_REPAINTED, *_COVERED))
        scene, finish, parts, thing, *sides = (None if v == UNCHANGED else v for v in chosen)
        (left, right), (top, bottom) = sides
        covered = left < right and top < bottom
        box = (left / 100, top / 100, right / 100, bottom / 100) if covered else None
        self.model.change = Change(scene, finish, tuple(parts), thing, box)

    def _restore(self) -> None:
        self.model.change = Change()
        self._picture_changed()
        self._update()

    def _picture_changed(self) -> None:
        """Mark the chosen picture and reset the controls that change it."""
        self._mark()
        scene = self.model.scene
        self._set("scene", value=UNCHANGED)
        self._set("finish", value=UNCHANGED)
        self._set("parts", options=scene.parts if scene else (), value=())
        self._set("thing", value=True, disabled=not (scene and scene.thing))
        for name in _COVERED:
            self._set(name, value=(0, 0))

    def _set(self, name: str, **traits) -> None:
        """Change a control without calling its handler."""
        self.quiet = True
        try:
            for trait, value in traits.items():
                setattr(self.choices[name], trait, value)
        finally:
            self.quiet = False

    def _turn(self, by: int) -> None:
        last = (len(self.model.pictures[self.model.source].images) - 1) // _STRIP * _STRIP
        self.first = min(max(self.first + by, 0), last)
        self._show_strip()

    def _find(self) -> None:
        word = self.choices["word"].value
        if not word.strip():
            return
        page, model = markup.templates(), self.model
        try:
            self.matches.value = page.found_neurons(word, model.search(word), model.book)
        except ValueError as error:
            self.matches.value = page.failure(error)

    # Results ------------------------------------------------------------------------------

    def _show_strip(self) -> None:
        """Show some pictures of the set, each above the button that chooses it."""
        images = self.model.pictures[self.model.source].images
        for i, tile in enumerate(self.strip.children, start=self.first):
            tile.layout.display = "" if i < len(images) else "none"
            if i < len(images):
                (picture, button), name = tile.children, images.names[i]
                picture.value = markup.img(markup.picture_tile(images.image(i), 88), name)
                button.tooltip = f"Explain {name}"
        self._mark()

    def _mark(self) -> None:
        """Mark the button of the explained picture; an upload has none."""
        chosen = None if self.model.upload else self.model.index
        for i, one in enumerate(self.strip.children, start=self.first):
            one.children[1].description = f"Picture {i}{' ✓' if i == chosen else ''}"

    def _tile(self, place: int) -> w.VBox:
        """Make one place of the strip, which shows other pictures when it is turned."""
        narrow = w.Layout(width="92px", padding="0")  # as wide as its picture
        button = w.Button(layout=narrow).add_class(f"www-picture-{place}")
        button.on_click(lambda _: self._choose_image(self.first + place))
        return w.VBox([w.HTML(), button])

    def _update(self) -> None:
        """Render everything that depends on the choices."""
        model = self.model
        classes = [(c, i) for i, c in enumerate(model.book.classes) if model.book.class_count[i]]
        offered = (("the predicted class", None), *classes)
        if self.choices["cls"].options != offered:
            self._set("cls", options=offered, value=model.cls)
            self._set("instead", options=(("no other class", None), *classes), value=model.instead)
        try:
            found = model.explanation()
        except ValueError as error:
            self.message.value = markup.templates().failure(error)
            return
        self.message.value = ""
        self.explanation.value = markup.explanation(found, model.book)
        self.repaint.layout.display = "" if model.scene else "none"
        before = model.explanation(Change()) if model.change else None
        self.change_result.value = markup.compared(before, found, model.output()) if before else ""
        self._update_neuron()

    def _update_neuron(self) -> None:
        page = self.model.page(self.choices["neuron"].value)
        self.neuron_page.value = markup.neuron_page(page, self.model.book)


def _controls(model: Model) -> dict[str, w.Widget]:
    fixed, last = {"continuous_update": True, "style": _STYLE}, len(model.record) - 1
    alpha = "Names, alpha"
    made = {
        "network": _choice("Network", list(model.books), "The network to explain"),
        "layer": _choice("Layer", list(model.book.layers), "The layer", value=model.layer),
        "source": _choice("Pictures", list(model.pictures), "The set of pictures"),
        "upload": w.FileUpload(
            accept="image/*", multiple=False, description="Your own picture",
            tooltip="A picture from your disk; it stays on this machine",
            layout=w.Layout(width="220px"),
        ),
        "earlier": w.Button(description="Earlier pictures", tooltip="Eight pictures back"),
        "later": w.Button(description="Later pictures", tooltip="Eight pictures on"),
        "cls": _choice("Class side", [("the predicted class", None)], "Whose neurons"),
        "instead": _choice("Rather than", [("no other class", None)], "Explain the difference"),
        "top": w.IntSlider(3, 1, 8, description="Neurons a track, k", **fixed),
        "percentile": w.IntSlider(90, 50, 99, description="Region, percentile", **fixed),
        "alpha": w.FloatSlider(model.alpha, min=0.5, max=1, step=0.01, description=alpha, **fixed),
        "neuron": w.BoundedIntText(0, max=last, description="Neuron", style=_STYLE),
        "word": w.Text(description="Word", placeholder="such as sail", style=_STYLE),
        "find": w.Button(description="Find neurons", tooltip="Neurons that match the word"),
        "scene": _choice("Scene", [UNCHANGED, *world.SCENES], "Another background scene"),
        "finish": _choice("Texture", [UNCHANGED, *world.FINISHES], "Another texture or material"),
        "parts": w.SelectMultiple(description="Remove parts", rows=4, style=_STYLE),
        "thing": w.Checkbox(value=True, description="keep the object beside it"),
        "across": w.IntRangeSlider(value=(0, 0), description="Cover across, %", **fixed),
        "down": w.IntRangeSlider(value=(0, 0), description="Cover down, %", **fixed),
        "restore": w.Button(description="Reset", tooltip="Undo all changes"),
    }  # fmt: skip
    for name, control in made.items():
        control.add_class(f"www-{name}")
    return made


def _choice(description: str, options: list, tooltip: str, **value: str) -> w.Dropdown:
    look = {"description": description, "style": _STYLE, "layout": w.Layout(width="330px")}
    return w.Dropdown(options=options, tooltip=tooltip, **look, **value)


def _html(name: str) -> w.HTML:
    return w.HTML().add_class(f"www-{name}")


def _section(title: str, children: list[w.Widget]) -> w.VBox:
    return w.VBox([w.HTML(markup.templates().title(title)), w.VBox(children)])
