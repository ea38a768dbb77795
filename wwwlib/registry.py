"""What the core reaches only by name: packages beside it, and optional dependencies.

The core imports neither until they are used. An extension, such as the concept world behind
"world/conv", is a module with any of

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


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Parameters
    ----------
    module : str
        Dotted name, such as ``"captum.attr"``.
    extra : str
        The extra of wwwlib that installs it.

    Raises
    ------
    ImportError
        If it is not installed; the sentence names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is not installed ({error}); install it with: pip install 'wwwlib[{extra}]'."
        ) from error
