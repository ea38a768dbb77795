"""The explorer: choose a picture, a class, a neuron or a word, and see what follows.

Plain ipywidgets over a `Model`; each control changes one choice, and what depends on it is told
again. Every part of the page has a class name of its own, such as ``www-alpha``.
"""

from collections.abc import Callable, Mapping

import ipywidgets as w

from wwwlib.atlas import Atlas
from wwwlib.explorer import controls, markup
from wwwlib.explorer.controls import AS_IS
from wwwlib.explorer.model import Change, Model, Pictures
from wwwlib.images import ImageSet
from wwwlib.language import Encoder
from wwwlib.plots.tiles import picture_tile

_STRIP = 8  # thumbnails at once


def explorer(
    books: Mapping[str, Atlas],
    pictures: Mapping[str, Pictures | ImageSet],
    encoder: Encoder | None = None,
) -> "Explorer":
    """Make the explorer of some atlases.

    Parameters
    ----------
    books : dict of str to Atlas
        Networks to choose from, by the names that the page shows.
    pictures : dict of str to Pictures or ImageSet
        Sets of images to choose from.
    encoder : Encoder, optional
        The one that named the neurons; needed to look for words.
    """
    sets = {n: p if isinstance(p, Pictures) else Pictures(p) for n, p in pictures.items()}
    return Explorer(Model(books, sets, encoder))


class Explorer(w.VBox):
    """The page: controls above, what follows from them below.

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model: Model):
        self.model, self.first, self.quiet = model, 0, False
        self.message = controls.html("message")
        self.choices = controls.make(model)
        self._wire(self.choices)
        self.strip = w.HBox(layout=w.Layout(flex_flow="row wrap"))
        self.told, self.change_told = controls.html("explanation"), controls.html("changed")
        self.neuron_told, self.word_told = controls.html("neuron-page"), controls.html("found")
        self.sections = self._sections()
        top = [w.HTML(markup.STYLE), self._row("network", "layer", "source", "upload")]
        strip = [w.HBox([self.choices["earlier"], self.choices["later"]]), self.strip]
        super().__init__(
            [*top, *strip, self.message, self._row("cls", "top", "percentile", "alpha"),
             self.told, *self.sections]
        )  # fmt: skip
        self.add_class("www-explorer")
        self._show_strip()
        self._changed_picture()
        self._tell()

    # What it is made of -------------------------------------------------------------------

    def _wire(self, made: dict[str, w.Widget]) -> None:
        """Let every control say what it changes."""
        on = {
            "network": self._choose_network, "layer": self._choose_layer,
            "source": self._choose_source, "upload": self._choose_upload,
            "cls": lambda value: setattr(self.model, "cls", value),
            "top": lambda value: setattr(self.model, "top", value),
            "percentile": lambda value: setattr(self.model, "percentile", float(value)),
            "alpha": lambda value: setattr(self.model, "alpha", float(value)),
            "neuron": lambda value: None,
            **dict.fromkeys(("scene", "finish", "parts", "thing"), self._choose_change),
        }  # fmt: skip
        for name, choose in on.items():
            made[name].observe(self._then(choose, name), "value")
        made["earlier"].on_click(lambda _: self._turn(-_STRIP))
        made["later"].on_click(lambda _: self._turn(_STRIP))
        made["find"].on_click(lambda _: self._find())
        made["word"].observe(lambda _: self._find(), "value")
        made["word"].continuous_update = False
        made["restore"].on_click(lambda _: self._restore())

    def _sections(self) -> list[w.Widget]:
        c = self.choices
        neuron = w.VBox([c["neuron"], self.neuron_told])
        word = w.VBox([w.HBox([c["word"], c["find"]]), self.word_told])
        change = w.VBox(
            [self._row("scene", "finish", "parts", "thing"), c["restore"], self.change_told]
        )
        self.change = w.VBox([controls.title("Take a part away, and see what changes"), change])
        return [
            self.change, w.VBox([controls.title("A neuron's page"), neuron]),
            w.VBox([controls.title("Look for a word"), word]),
        ]  # fmt: skip

    def _row(self, *names: str) -> w.HBox:
        return w.HBox([self.choices[name] for name in names], layout=w.Layout(flex_flow="row wrap"))

    # What happens -------------------------------------------------------------------------

    def _then(self, choose: Callable, name: str) -> Callable:
        """Make a handler that changes a choice and tells again what depends on it."""

        def handle(change) -> None:
            if self.quiet:
                return
            try:
                choose(change["new"])
            except ValueError as error:
                self.message.value = markup.failure(error)
            else:
                self._tell_neuron() if name == "neuron" else self._tell()

        return handle

    def _choose_network(self, name: str) -> None:
        self.model.choose_network(name)
        self._set("layer", options=list(self.model.book.layers), value=self.model.layer)
        self._set("neuron", max=len(self.model.record) - 1)

    def _choose_layer(self, name: str) -> None:
        self.model.layer = name
        self._set("neuron", max=len(self.model.record) - 1)

    def _choose_source(self, name: str) -> None:
        self.first = 0
        self.model.choose_image(name, 0)
        self._changed_picture()
        self._show_strip()

    def _choose_upload(self, files) -> None:
        if files:
            self.model.choose_upload(bytes(files[0]["content"]))
            self._changed_picture()

    def _choose_image(self, index: int) -> None:
        self.model.choose_image(self.model.source, index)
        self._changed_picture()
        self._tell()

    def _choose_change(self, _) -> None:
        chosen = {name: self.choices[name].value for name in ("scene", "finish", "parts", "thing")}
        self.model.change = Change(
            scene=None if chosen["scene"] == AS_IS else chosen["scene"],
            finish=None if chosen["finish"] == AS_IS else chosen["finish"],
            missing=tuple(chosen["parts"]),
            thing=chosen["thing"],
        )

    def _restore(self) -> None:
        self.model.change = Change()
        self._changed_picture()
        self._tell()

    def _changed_picture(self) -> None:
        """Mark another picture, and offer its parts, none of them taken away."""
        self._mark()
        scene = self.model.scene
        self._set("scene", value=AS_IS)
        self._set("finish", value=AS_IS)
        self._set("parts", options=scene.parts if scene else (), value=())
        self._set("thing", value=True, disabled=not (scene and scene.thing))

    def _set(self, name: str, **traits) -> None:
        """Change a control without its handler."""
        self.quiet = True
        try:
            for trait, value in traits.items():
                setattr(self.choices[name], trait, value)
        finally:
            self.quiet = False

    def _turn(self, by: int) -> None:
        count = len(self.model.pictures[self.model.source].images)
        last = (count - 1) // _STRIP * _STRIP
        self.first = min(max(self.first + by, 0), last)
        self._show_strip()

    def _find(self) -> None:
        word = self.choices["word"].value
        if not word.strip():
            return
        try:
            found = self.model.search(word)
        except ValueError as error:
            self.word_told.value = markup.failure(error)
        else:
            self.word_told.value = markup.found_neurons(word, found, self.model.book)

    # What is shown ------------------------------------------------------------------------

    def _show_strip(self) -> None:
        """Show some pictures of the set, each above a button that chooses it."""
        images = self.model.pictures[self.model.source].images
        self.strip.children = [
            self._thumbnail(images, i)
            for i in range(self.first, min(self.first + _STRIP, len(images)))
        ]
        self._mark()

    def _mark(self) -> None:
        """Say on its button which picture is explained; none of them is, after an upload."""
        chosen = None if self.model.upload else self.model.index
        for i, one in enumerate(self.strip.children, start=self.first):
            one.children[1].description = f"Picture {i}{' ✓' if i == chosen else ''}"

    def _thumbnail(self, images: ImageSet, i: int) -> w.VBox:
        picture = w.HTML(markup.img(picture_tile(images.image(i), 88), images.names[i]))
        narrow = w.Layout(width="92px", padding="0")  # as wide as its picture, and words uncut
        button = w.Button(tooltip=f"Explain {images.names[i]}", layout=narrow)
        button.add_class(f"www-picture-{i}")
        button.on_click(lambda _: self._choose_image(i))
        return w.VBox([picture, button])

    def _tell(self) -> None:
        """Tell everything that hangs on the choices."""
        model = self.model
        classes = [(c, i) for i, c in enumerate(model.book.classes) if model.book.class_count[i]]
        offered = (("the predicted class", None), *classes)
        if self.choices["cls"].options != offered:
            self._set("cls", options=offered, value=model.cls)
        try:
            found = model.explanation()
        except ValueError as error:
            self.message.value = markup.failure(error)
            return
        self.message.value = ""
        self.told.value = markup.explanation(found, model.book)
        self.change.layout.display = "" if model.scene else "none"
        same = not (model.change and model.scene)
        self.change_told.value = (
            "" if same else markup.compared(model.before(), model.look(), model.book)
        )
        self._tell_neuron()

    def _tell_neuron(self) -> None:
        page = self.model.page(self.choices["neuron"].value)
        self.neuron_told.value = markup.neuron_page(page, self.model.book)
