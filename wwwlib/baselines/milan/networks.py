"""MILAN's networks: an attentive decoder, a language model, and beam search.

The decoder gives p(d | E), the probability of a description d given the features E of a neuron's
exemplars; before each word it attends to the exemplars, after Xu et al., "Show, Attend and Tell",
ICML 2015. The language model gives p(d), the probability of a description for any neuron. Words
are numbered; `START` begins a description and `END` ends it. A `Describer` is a trained pair of
both with the encoder that computes the features.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from wwwlib.baselines.common import best_of_blocks
from wwwlib.registry import existing_file, extension, whole_number
from wwwlib.store import digest, tensor_digest
from wwwlib.targets import Target
from wwwlib.targets import load as load_target

MARKS = ("<start>", "<end>")  # the first two words of every vocabulary
START, END = 0, 1
State = tuple[Tensor, Tensor]
Step = Callable[..., tuple[Tensor, State]]


def pool(stages: Iterable[Tensor], masks: Tensor) -> Tensor:
    """Average the maps of several stages over masks, and concatenate the stages.

    Parameters
    ----------
    stages : iterable of Tensor
        (B, C, h, w) each.
    masks : Tensor
        (B, R, H, W) in [0, 1], R masks per image, averaged down to h x w.

    Returns
    -------
    Tensor
        (B, R, F), where F is the sum of the stages' channels; zeros where a mask is empty.
    """
    pooled = []
    for a in stages:
        small = functional.adaptive_avg_pool2d(masks.to(a), a.shape[2:])
        weight = small.sum((2, 3)).clamp_min(1e-12)
        pooled.append(torch.einsum("bchw,brhw->brc", a, small) / weight[..., None])
    return torch.cat(pooled, 2)


class Attention(nn.Module):
    """Attention weights of K memories given a state: ``softmax_k v . tanh(M m_k + H h)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_memory = nn.Linear(width, width, bias=False)
        self.of_state = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, memory: Tensor, h: Tensor) -> Tensor:
        """Return the weights (B, K) of memories (B, K, W) for states (B, W)."""
        hidden = torch.tanh(self.of_memory(memory) + self.of_state(h)[:, None])
        return self.score(hidden)[..., 0].softmax(1)


class Decoder(nn.Module):
    """p(d | E): an LSTM that attends to the exemplars before each word.

    Parameters
    ----------
    features : int
        F, the length of an exemplar's feature vector.
    words : int
        V, the size of the vocabulary, `MARKS` included.
    width, embedding : int
        Sizes of the state and of a word vector.
    """

    def __init__(self, features: int, words: int, width: int = 128, embedding: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.of_features = nn.Linear(features, width)
        self.start = nn.Linear(width, 2 * width)
        self.embed = nn.Embedding(words, embedding)
        self.attend = Attention(width)
        self.cell = nn.LSTMCell(embedding + width, width)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(2 * width, words)

    def begin(self, features: Tensor) -> tuple[Tensor, State]:
        """Return memories (B, K, W) of features (B, K, F), and the state before the first word."""
        memory = torch.relu(self.of_features((features - self.mean) / self.scale))
        h, c = self.start(memory.mean(1)).tanh().chunk(2, 1)
        return memory, (h.contiguous(), c.contiguous())

    def step(self, word: Tensor, state: State, memory: Tensor) -> tuple[Tensor, State]:
        """Return log p (B, V) of the word after `word` (B,), and the next state."""
        context = (self.attend(memory, state[0])[:, :, None] * memory).sum(1)
        h, c = self.cell(torch.cat([self.embed(word), context], 1), state)
        return self.out(self.drop(torch.cat([h, context], 1))).log_softmax(1), (h, c)


class LanguageModel(nn.Module):
    """p(d): an LSTM over descriptions, with the interface of `Decoder` but for the memories."""

    def __init__(self, words: int, width: int = 96, embedding: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, embedding)
        self.cell = nn.LSTMCell(embedding, width)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(width, words)

    def begin(self, batch: int) -> State:
        """Return the state before the first word of `batch` descriptions."""
        zeros = self.out.weight.new_zeros(batch, self.cell.hidden_size)
        return zeros, zeros

    def step(self, word: Tensor, state: State) -> tuple[Tensor, State]:
        """Return log p (B, V) of the word after `word` (B,), and the next state."""
        h, c = self.cell(self.embed(word), state)
        return self.out(self.drop(h)).log_softmax(1), (h, c)


def log_probability(step: Step, state: State, tokens: Tensor, *memory: Tensor) -> Tensor:
    """Return the log-probabilities of descriptions, their end included.

    Parameters
    ----------
    step : callable
        `Decoder.step` or `LanguageModel.step`.
    state : (Tensor, Tensor)
        As `begin` returns it.
    tokens : Tensor of int64
        (B, L) words; those after the first `END` do not count.
    *memory : Tensor
        Further arguments of `step`.

    Returns
    -------
    Tensor
        (B,)
    """
    word = torch.full_like(tokens[:, 0], START)
    open_, total = torch.ones_like(word, dtype=torch.bool), 0.0
    for following in tokens.unbind(1):
        log_p, state = step(word, state, *memory)
        total = total + log_p.gather(1, following[:, None])[:, 0].where(open_, 0)
        open_, word = open_ & (following != END), following
    return total


@torch.inference_mode()
def beam_search(
    step: Step, state: State, memory: Tensor, beam: int = 50, length: int = 8
) -> tuple[Tensor, Tensor]:
    """Find the most probable complete descriptions of N neurons.

    Each beam holds the best unfinished and finished descriptions so far; a finished one keeps its
    probability. Only an end may follow the last word but one, so that all descriptions are
    complete. If the beam holds all descriptions, the search is exhaustive.

    Parameters
    ----------
    step : callable
        ``step(word, state, memory) -> log p (B, V), state``, such as `Decoder.step`.
    state : (Tensor, Tensor)
        (N, W) each, as `Decoder.begin` returns it.
    memory : Tensor
        (N, K, W).
    beam : int
        Descriptions kept for each neuron, at least 1.
    length : int
        Largest number of words of a description, its end included; at least 2.

    Returns
    -------
    tokens : Tensor of int64, shape (N, beam, length)
        Best first, padded with `END`.
    total : Tensor, shape (N, beam)
        log p of each; -inf where there are fewer descriptions than the beam holds.

    Raises
    ------
    ValueError
        If `beam` or `length` is too small.
    """
    whole_number("beam", beam)
    whole_number("length", length, 2)  # a word and its end
    neurons = len(memory)
    tokens = torch.full((neurons, 1, 1), START, device=memory.device)
    total = memory.new_zeros(neurons, 1)
    for position in range(length):
        log_p, state = step(tokens[:, :, -1].flatten(), state, memory)
        log_p = log_p.unflatten(0, (neurons, -1)).clone()
        ended = tokens[:, :, -1] == END
        log_p[:, :, START] = -torch.inf
        log_p[:, :, END].masked_fill_(ended, 0)
        ended |= position == length - 1
        log_p[:, :, END + 1 :].masked_fill_(ended[:, :, None], -torch.inf)
        total, best = best_of_blocks([(total[:, :, None] + log_p).flatten(1)], beam)
        parent, word = best // log_p.shape[2], best % log_p.shape[2]
        tokens = torch.cat([tokens.take_along_dim(parent[:, :, None], 1), word[:, :, None]], 2)
        wide = parent + torch.arange(neurons, device=parent.device)[:, None] * log_p.shape[1]
        state = tuple(part[wide.flatten()] for part in state)
        memory = memory[wide.flatten()]
    return tokens[:, :, 1:], total


class Describer(nn.Module):
    """A trained MILAN in evaluation mode: describes sets of image regions in words.

    Parameters
    ----------
    encoder : Target
        A fixed network, whatever network is studied; its layers `stages` give the features.
    stages : tuple of str
        In the order of the network.
    decoder : Decoder
        p(d | E).
    language : LanguageModel
        p(d).
    vocabulary : tuple of str
        V words; the first two are `MARKS`.
    """

    def __init__(
        self,
        encoder: Target,
        stages: Sequence[str],
        decoder: Decoder,
        language: LanguageModel,
        vocabulary: Sequence[str],
    ) -> None:
        super().__init__()
        self.encoder, self.stages, self.vocabulary = encoder, tuple(stages), tuple(vocabulary)
        self.decoder, self.language = decoder, language
        self.eval()

    @property
    def digest(self) -> str:
        """SHA-256 of all parts."""
        weights = tensor_digest(self.state_dict())
        return digest({"milan": [self.encoder.digest, self.stages, self.vocabulary, weights]})

    def text(self, tokens: Sequence[int]) -> str:
        """Return the words of tokens up to the first end."""
        return " ".join(self.vocabulary[i] for i in takewhile(lambda i: i != END, tokens))


def save(describer: Describer, path: str | Path) -> None:
    """Write a describer in half precision; of the encoder only its name and digest."""
    state = {name: value.half().contiguous() for name, value in describer.state_dict().items()}
    metadata = {"encoder": describer.encoder.name, "weights": describer.encoder.digest}
    metadata |= {"stages": describer.stages, "vocabulary": describer.vocabulary}
    save_file(state, path, {"milan": json.dumps(metadata, sort_keys=True)})


def load(path: str | Path = "world") -> Describer:
    """Load a describer.

    Parameters
    ----------
    path : path
        A file written by `save`; "world" for the one that ships with the concept world.

    Returns
    -------
    Describer
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a describer, or its encoder has other weights than in training.
    """
    if str(path) == "world":
        path = extension("world").DATA / "milan.safetensors"
    path = existing_file(path, "one that milan.save wrote, or 'world'")
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads(file.metadata()["milan"])
        state = load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is not a describer, or damaged ({type(error).__name__}); give a file "
            "that milan.save wrote, or restore the shipped one from the repository."
        ) from error
    encoder = load_target(metadata["encoder"])
    if encoder.digest != metadata["weights"]:
        raise ValueError(
            f"{str(path)!r} was trained with other weights of {metadata['encoder']}; train it "
            "again, for the concept world with `python data/train_milan.py`."
        )
    vocabulary = metadata["vocabulary"]
    width, features = state["decoder.of_features.weight"].shape
    decoder = Decoder(features, len(vocabulary), width, state["decoder.embed.weight"].shape[1])
    embedding = state["language.embed.weight"].shape[1]
    language = LanguageModel(len(vocabulary), state["language.out.weight"].shape[1], embedding)
    describer = Describer(encoder, metadata["stages"], decoder, language, vocabulary)
    describer.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return describer
