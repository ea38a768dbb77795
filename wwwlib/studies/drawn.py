"""Images drawn for each concept, to test names with (CoSy, Kopf et al., NeurIPS 2024)."""

from collections.abc import Callable, Iterable, Sequence

from PIL import Image

from wwwlib.evaluation import Truth, from_labels
from wwwlib.images import ImageSet, dataset


def from_drawn(images: ImageSet, control: str = "control") -> Truth:
    """Make a truth of images drawn for each concept, and of control images (CoSy).

    Parameters
    ----------
    images : ImageSet
        Such as a folder of one subfolder for each concept, or what `drawn` returns.
    control : str
        The class of the images that no concept was drawn for. A concept is compared with them
        alone, since images drawn for another concept may show it as well.

    Raises
    ------
    ValueError
        If there are no control images.
    """
    truth = from_labels(images)
    if control not in truth.words or not truth.present[:, truth.words.index(control)].any():
        raise ValueError(f"{images.name!r} has no images of the class {control!r} to compare with.")
    at = truth.words.index(control)
    words = tuple(word for word in truth.words if word != control)
    present = truth.present[:, [j for j in range(len(truth.words)) if j != at]]
    return Truth(truth.images, words, present, present | truth.present[:, at : at + 1])


def drawn(draw: Callable, words: Sequence[str], n: int, control: Iterable[Image.Image]) -> ImageSet:
    """Draw n images of each concept with ``draw(concept, n)``, for `from_drawn`.

    `draw` returns n PIL images, and `control` are some that no concept was drawn for. The images
    are held in memory: for thousands of concepts, write them to one folder for each.

    Examples
    --------
    Images of a diffusion model, as in CoSy (needs the package diffusers and a GPU; not run in the
    tests)::

        pipeline = AutoPipelineForText2Image.from_pretrained("stabilityai/sdxl-turbo").to("cuda")

        def draw(concept, n):
            prompts = [f"a photo of {concept}"] * n
            return pipeline(prompts, num_inference_steps=1, guidance_scale=0.0).images

        truth = from_drawn(drawn(draw, words, 50, control=photographs))
    """
    items = [(image, j) for j, word in enumerate(words) for image in draw(word, n)]
    items += [(image, len(words)) for image in control]
    return dataset(items, "drawn", (*words, "control"), progress=False)
