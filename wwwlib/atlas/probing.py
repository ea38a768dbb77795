"""Ask by word: which neurons stand for it? Text probing in the space where neurons were named.

Any word will do, also one that is in no concept set: it is put into the template and scored against
every neuron as the concepts were (WWW, Eq. 1).
"""

from dataclasses import dataclass

from wwwlib.atlas.atlas import Atlas
from wwwlib.concepts import score
from wwwlib.language import Encoder


@dataclass(frozen=True)
class Found:
    """A neuron that a word was found to fit.

    Attributes
    ----------
    layer : str
    index : int
        The neuron's number in it.
    score : float
        The word's score for it, cosine less the template's, in [-2, 2].
    share : float
        That score as a share of the neuron's best concept's: above 1, it fits better than any.
    names : tuple of str
        The neuron's own names.
    """

    layer: str
    index: int
    score: float
    share: float
    names: tuple[str, ...]


def find(book: Atlas, word: str, encoder: Encoder, top: int = 8) -> list[Found]:
    """Find the neurons that fit a word best, over all layers of an atlas.

    Parameters
    ----------
    book : Atlas
    word : str
        One word or a few.
    encoder : Encoder
        The one that the atlas was built with.
    top : int
        At most so many are returned.

    Returns
    -------
    list of Found
        The best fit first; neurons that abstain or that the word does not fit are left out.

    Raises
    ------
    ValueError
        If there is no word, or the encoder is another one.
    """
    word = " ".join(word.split())
    if not word:
        raise ValueError("There is no word to look for; type one, such as a colour or a part.")
    if encoder.name != book.settings["encoder"]:
        raise ValueError(
            f"The atlas was named with {book.settings['encoder']}, but the encoder is "
            f"{encoder.name}; look with the one that it was named with."
        )
    sentence = book.settings["words"]["template"].replace("{}", word)
    t = encoder.encode_texts([sentence]).float().cpu()
    found = []
    for name, layer in book.layers.items():
        for i, s in enumerate(score(layer.v, t, book.t0)[:, 0].tolist()):
            best = layer.major.scores[i][:1]
            if best and s > 0:
                names = tuple(layer.major.names[i])
                found.append(Found(name, i, s, s / best[0], names))
    return sorted(found, key=lambda one: -one.score)[:top]
