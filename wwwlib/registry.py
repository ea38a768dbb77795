"""Names that a package beside the core provides, such as "world/conv" or the probe set "world".

The core imports none of these packages: `extension` loads one when its name is first used. An
extension is a module with any of

- ``target(name, weights) -> Target``, behind ``targets.load("<extension>/<name>")``
- ``image_set(count, seed) -> ImageSet``, behind ``images.load("<extension>")``
- ``encoder_folder() -> Path``, an open_clip folder, behind ``language.encoder("<extension>")``
- ``VOCABULARY``, the words behind ``language.concept_set("<extension>")``
- ``SYNONYMS``, a dict of class names to all their names, for targets with these classes.
"""

from importlib import import_module
from types import ModuleType

EXTENSIONS = {"world": "wwwlib.world"}


def extension(name: str) -> ModuleType | None:
    """Return the module registered under a name, None if there is none."""
    return import_module(EXTENSIONS[name]) if name in EXTENSIONS else None
