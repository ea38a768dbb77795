"""WWW: what each neuron of a vision network responds to, where, and why it matters for a class.

    import wwwlib
    book = wwwlib.build(model, "photos/")      # an Atlas
    print(book.explain("cat.jpg"))

Ahn, Kim, Kim, "WWW: A Unified Framework for Explaining What, Where and Why of Neural Networks by
Interpretation of Neuron Concepts", CVPR 2024. The modules follow the steps of the method; all are
imported when they are first used.
"""

from importlib import import_module
from importlib.util import find_spec

__version__ = "0.1.0"
__all__ = ["build", "load"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("wwwlib.short_way"), name)
    if not name.startswith("_") and find_spec(f"wwwlib.{name}"):
        return import_module(f"wwwlib.{name}")
    raise AttributeError(f"module 'wwwlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
