"""The short way: an atlas of any network from a folder of images, in one call.

`build` turns what it is given (a model, a folder, a list of words, the name of an encoder) into the
objects that `atlas.build` needs; `load` reads an atlas back. Both are available as ``wwwlib.build``
and ``wwwlib.load``.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from wwwlib import atlas, images, language, maps, targets
from wwwlib.atlas import Atlas
from wwwlib.evaluation import Truth, from_labels
from wwwlib.images import ImageSet
from wwwlib.language import ConceptSet, Encoder
from wwwlib.language.encoders import checked
from wwwlib.registry import expanded, extension
from wwwlib.store import Store
from wwwlib.targets import Target

ENCODER = "ViT-B-32-quickgelu/openai"


def build(
    model: nn.Module | str | Target,
    images: str | Path | ImageSet | Dataset,
    layers: str | Sequence[str] | None = None,
    concepts: str | Path | Iterable[str] | ConceptSet = "wordnet",
    encoder: str | Encoder = ENCODER,
    *,
    preprocess: Callable[[Image.Image], Tensor] | None = None,
    classes: Sequence[str] | None = None,
    test: str | Path | ImageSet | Dataset | Truth | None = None,
    device: str | torch.device | None = None,
    store: bool | str | Path | Store = True,
    **settings: Any,
) -> Atlas:
    """Build the atlas of a network.

    ::

        model = timm.create_model("resnet50", pretrained=True)
        book = wwwlib.build(model, "photos/", layers=["layer4"], concepts="wordnet")
        book.names("layer4").to_csv("names.csv")
        print(book.explain("cat.jpg"))

    Parameters
    ----------
    model : nn.Module, str or Target
        A network of timm or torchvision, whose preprocessing and class names are found; any other
        one with `preprocess` and `classes`; or a name for `targets.load`. It is moved to the device
        and set to evaluation mode.
    images : str, path, ImageSet or torch Dataset
        The probe set: a folder, whose subfolders are classes; the name of an extension's images,
        such as "world"; or a data set of (image, label) pairs, see `images.dataset`.
    layers : str or sequence of str, optional
        By default the last layer with a spatial output.
    concepts : str, path, list of str or ConceptSet
        A name for `language.concept_set`, a text file with one concept per line, or the words.
    encoder : str or Encoder
        A name for `language.encoder`, such as that of a model and its weights in open_clip.
    preprocess : callable, optional
        Maps a PIL RGB image to (3, H, W), deterministically.
    classes : sequence of str, optional
        Class names in the order of the logits, see `images.class_names`.
    test : str, path, ImageSet, torch Dataset or Truth, optional
        Images with known concepts that test the names: a `evaluation.Truth`, the name of an
        extension, or images whose classes are concepts, given like `images` and apart from them.
    device : str or torch.device, optional
        Device of network and encoder, by default "cuda" if available, else "cpu".
    store : bool, path or Store
        Where intermediate results are kept, so that a second build is fast and an interrupted one
        resumes: by default in the folder of `Store.default`; False keeps nothing.
    **settings
        Other parameters of `atlas.build`, such as `k`, `alpha` or `batch_size`; `labelled` is given
        like `images`.

    Returns
    -------
    Atlas

    Raises
    ------
    ValueError
        If preprocessing, class names or a layer are needed and cannot be found, or an argument is
        invalid.
    """
    device = _device(device)
    target = _target(model, preprocess, classes).to(device)
    layers = [maps.last_spatial_layer(target)] if layers is None else layers
    probe, words = image_set(images, target), _concepts(concepts, target)
    if (labelled := settings.get("labelled")) is not None:
        settings["labelled"] = image_set(labelled, target)
    encoder = language.encoder(encoder, str(device)) if isinstance(encoder, str) else encoder
    kept = _store(store)
    known = None if test is None else _truth(test, target, kept)
    how = {"test": known, "store": kept, **settings}
    return atlas.build(target, probe, checked(encoder, "encoder="), words, layers, **how)


def load(
    folder: str | Path,
    model: nn.Module | str | Target | None = None,
    *,
    preprocess: Callable[[Image.Image], Tensor] | None = None,
    classes: Sequence[str] | None = None,
    device: str | torch.device | None = None,
) -> Atlas:
    """Read an atlas that `Atlas.save` wrote.

    Parameters
    ----------
    folder : str or path
        The folder given to `Atlas.save`.
    model : nn.Module, str or Target, optional
        The network; by default it is loaded by its name, if it has one.
    preprocess, classes, device
        As in `build`.

    Raises
    ------
    FileNotFoundError
        If the folder has no atlas.
    ValueError
        If the atlas is damaged, the network is another one, or cannot be loaded by name.
    """
    found = Atlas.load(folder, None if model is None else _target(model, preprocess, classes))
    found.target.to(_device(device))
    return found


def _device(device: str | torch.device | None) -> torch.device:
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return found if device is None else torch.empty(0, device=found).device
    except (RuntimeError, AssertionError) as error:  # torch knows more devices than there are
        raise ValueError(f"device {device!r} is not here; use 'cpu' or 'cuda'.") from error


def _store(store: bool | str | Path | Store) -> Store | None:
    if isinstance(store, Store) or not store:
        return store if isinstance(store, Store) else None
    found = Store.default() if store is True else Store(expanded(store))
    if found.root and not Path(found.root).exists():
        print(
            f"wwwlib keeps intermediate results in {str(found.root)!r}, to reuse them and to "
            "resume interrupted runs; pass store=False to keep none, or store=<folder>."
        )
    return found


def image_set(given: str | Path | ImageSet | Dataset, target: Target) -> ImageSet:
    """Open images, given as `build` takes them."""
    if isinstance(given, ImageSet):
        return given
    if isinstance(given, Dataset):
        return images.dataset(given, classes=getattr(given, "classes", target.classes))
    if provided := extension(str(given)):
        return provided.image_set(None, 0)
    if not hasattr(given, "joinpath") and not isinstance(given, str):
        raise TypeError(f"The images are a {type(given).__name__}; give a folder or a Dataset.")
    return images.folder(given)


def _truth(given: str | Path | ImageSet | Dataset | Truth, target: Target, store: Any) -> Truth:
    if isinstance(given, Truth):
        return given
    if isinstance(given, str) and (provided := extension(given)):
        return provided.truth(store=store)
    return from_labels(image_set(given, target))


def _concepts(given: str | Path | Iterable[str] | ConceptSet, target: Target) -> ConceptSet:
    if isinstance(given, ConceptSet):
        return given
    if isinstance(given, str | Path):
        is_file = isinstance(given, Path) or Path(given).suffix == ".txt" or Path(given).is_file()
        return language.from_file(given) if is_file else language.concept_set(str(given), target)
    return ConceptSet(tuple(given))


def _target(model: nn.Module | str | Target, preprocess: Any, classes: Any) -> Target:
    if isinstance(model, Target):
        return model
    if isinstance(model, str):
        return targets.load(model, classes=classes)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; give a Module, a name or a Target.")
    return targets.from_module(model, preprocess, classes)
