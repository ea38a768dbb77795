"""MILAN's networks: a decoder that looks at regions while it speaks, and one that only speaks.

The decoder gives p(d | E), the probability of a description d given the features E of a neuron's
exemplars; before each word it attends to them anew, after Xu et al., "Show, Attend and Tell",
ICML 2015. The language model gives p(d), what is said of neurons in general. Both speak words by
number; `START` begins a description and `END` ends it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

START, END, FIRST_WORD = 0, 1, 2  # numbers of the two marks, and of the first word
State = tuple[Tensor, Tensor]


def pool(stage: Tensor, masks: Tensor) -> Tensor:
    """Average features over the masked parts of a map.

    Parameters
    ----------
    stage : Tensor
        (B, C, h, w) what one stage of an encoder says.
    masks : Tensor
        (B, R, H, W) in [0, 1], R masks an image, brought down to h x w by averaging.

    Returns
    -------
    Tensor
        (B, R, C); zeros where a mask is empty.
    """
    small = functional.adaptive_avg_pool2d(masks.to(stage), stage.shape[2:])
    weight = small.sum((2, 3)).clamp_min(1e-12)
    return torch.einsum("bchw,brhw->brc", stage, small) / weight[..., None]


class Attention(nn.Module):
    """Shares of K memories, from what was said so far: ``softmax_k v . tanh(M m_k + H h)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_memory = nn.Linear(width, width, bias=False)
        self.of_state = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, memory: Tensor, h: Tensor) -> Tensor:
        """Return the shares (B, K) of memories (B, K, W) for states (B, W)."""
        seen = torch.tanh(self.of_memory(memory) + self.of_state(h)[:, None])
        return self.score(seen)[..., 0].softmax(1)


class Decoder(nn.Module):
    """p(d | E): an LSTM that attends to the exemplars before each word.

    Parameters
    ----------
    features : int
        F, the length of an exemplar's feature vector.
    words : int
        V, the size of the vocabulary with both marks.
    width, embedding : int
        Of the state, and of a word.
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
        """Return log p (B, V) of the next word after `word` (B,), and the state behind it."""
        shares = self.attend(memory, state[0])
        context = (shares[:, :, None] * memory).sum(1)
        h, c = self.cell(torch.cat([self.embed(word), context], 1), state)
        return self.out(self.drop(torch.cat([h, context], 1))).log_softmax(1), (h, c)


class LanguageModel(nn.Module):
    """p(d): a plain LSTM over descriptions; `step` is the decoder's, without memories."""

    def __init__(self, words: int, width: int = 96, embedding: int = 64) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(words, embedding)
        self.cell = nn.LSTMCell(embedding, width)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(width, words)

    def begin(self, batch: int) -> State:
        """Return the state before the first word of `batch` descriptions."""
        zeros = self.out.weight.new_zeros(batch, self.width)
        return zeros, zeros

    def step(self, word: Tensor, state: State) -> tuple[Tensor, State]:
        """Return log p (B, V) of the next word after `word` (B,), and the state behind it."""
        h, c = self.cell(self.embed(word), state)
        return self.out(self.drop(h)).log_softmax(1), (h, c)


def log_probability(step, state: State, tokens: Tensor, *memory: Tensor) -> Tensor:
    """Sum the log-probabilities of the words of descriptions, their end among them.

    Parameters
    ----------
    step : callable
        `Decoder.step` or `LanguageModel.step`.
    state : (Tensor, Tensor)
        As `begin` returns it.
    tokens : Tensor of int64
        (B, L) words; whatever follows the first `END` does not count.
    *memory : Tensor
        What else `step` takes.

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
