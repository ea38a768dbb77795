"""A trained MILAN: the encoder that sees, the decoder that describes, the model of language.

The encoder is a fixed network with named stages, whatever network is under study. Decoder and
language model lie in one safetensors file, with the vocabulary and the encoder's digest in its
metadata: features of other weights would be words in another tongue.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from wwwlib.baselines.milan.networks import Decoder, LanguageModel
from wwwlib.registry import extension
from wwwlib.store import digest, tensor_digest
from wwwlib.targets import Target
from wwwlib.targets import load as load_target

MARKS = ("<start>", "<end>")  # the first two words of every vocabulary


@dataclass(frozen=True, eq=False, repr=False)
class Describer:
    """What turns sets of image regions into words.

    Attributes
    ----------
    encoder : Target
        Reads the images; its layers `stages` give the features.
    stages : tuple of str
        From the first to the last.
    decoder : Decoder
        p(d | E), in evaluation mode.
    language : LanguageModel
        p(d), in evaluation mode.
    vocabulary : tuple of str
        V words; the first two are `MARKS`.
    digest : str
        SHA-256 of all of it.
    """

    encoder: Target
    stages: tuple[str, ...]
    decoder: Decoder
    language: LanguageModel
    vocabulary: tuple[str, ...]
    digest: str

    def __repr__(self) -> str:
        return f"Describer({len(self.vocabulary)} words, sees through {self.encoder.name})"

    def text(self, tokens: Sequence[int]) -> str:
        """Return the words up to the first end."""
        words = [self.vocabulary[token] for token in tokens]
        return " ".join(words[: words.index(MARKS[1])] if MARKS[1] in words else words)


def assemble(
    encoder: Target,
    stages: Sequence[str],
    decoder: Decoder,
    language: LanguageModel,
    vocabulary: Sequence[str],
) -> Describer:
    """Make a describer of its parts, in evaluation mode."""
    parts = nn.ModuleDict({"decoder": decoder.eval(), "language": language.eval()})
    content = [encoder.digest, list(stages), list(vocabulary), tensor_digest(parts.state_dict())]
    return Describer(
        encoder, tuple(stages), decoder, language, tuple(vocabulary), digest({"milan": content})
    )


def save(describer: Describer, path: str | Path) -> None:
    """Write decoder, language model and what they need to know, in half precision."""
    parts = {"decoder": describer.decoder, "language": describer.language}
    state = {
        f"{name}.{key}": tensor.half().contiguous()
        for name, part in parts.items()
        for key, tensor in part.state_dict().items()
    }
    told = {
        "encoder": describer.encoder.name,
        "weights": describer.encoder.digest,
        "stages": describer.stages,
        "vocabulary": describer.vocabulary,
    }
    save_file(state, path, {"milan": json.dumps(told, sort_keys=True)})


def load(path: str | Path = "world") -> Describer:
    """Load a describer.

    Parameters
    ----------
    path : path
        A file that `save` wrote; "world" for the one that comes with the concept world.

    Returns
    -------
    Describer
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no describer, or its encoder has other weights than in its training.
    """
    path = _shipped() if str(path) == "world" else Path(path).expanduser()
    told, state = _read(path)
    encoder = load_target(told["encoder"])
    if encoder.digest != told["weights"]:
        raise ValueError(
            f"{str(path)!r} was trained on what other weights of {told['encoder']} see; train it "
            "again with `make world`."
        )
    decoder, language = _built(state, len(told["vocabulary"]))
    for name, part in (("decoder", decoder), ("language", language)):
        part.load_state_dict(
            {
                key.removeprefix(f"{name}."): tensor.float()
                for key, tensor in state.items()
                if key.startswith(f"{name}.")
            }
        )
    return assemble(encoder, told["stages"], decoder, language, told["vocabulary"])


def _shipped() -> Path:
    return extension("world").DATA / "milan.safetensors"


def _read(path: Path) -> tuple[dict, dict]:
    """Return what a file tells about itself, and its tensors."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no describer {str(path)!r}; give a file that milan.save wrote, or 'world'."
        )
    try:
        with safe_open(path, "pt") as file:
            told = json.loads(file.metadata()["milan"])
        return told, load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is no describer, or a damaged one ({type(error).__name__}); give a "
            "file that milan.save wrote, or restore the shipped one from the repository."
        ) from error


def _built(state: dict, words: int) -> tuple[Decoder, LanguageModel]:
    """Build both networks in the sizes that the tensors have."""
    width, features = state["decoder.of_features.weight"].shape
    embedding = state["decoder.embed.weight"].shape[1]
    plain = state["language.embed.weight"].shape[1]
    return (
        Decoder(features, words, width, embedding),
        LanguageModel(words, state["language.out.weight"].shape[1], plain),
    )
