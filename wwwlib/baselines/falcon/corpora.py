"""Where FALCON's words come from: sentences with text features, searched for the nearest ones.

A corpus is a list of sentences in memory, or a folder of embedding shards as LAION published them,
which is searched block by block and never read whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wwwlib.language import ConceptSet, Encoder
from wwwlib.language.concept_sets import read_lines
from wwwlib.store import Store

_BLOCK = 65_536  # rows of a shard that are in memory at once


@dataclass(frozen=True, eq=False)
class Captions:
    """M sentences in memory, and their unit-norm text features t (M, D)."""

    texts: tuple[str, ...]
    t: Tensor

    def nearest(self, v: Tensor, count: int) -> tuple[list[list[str]], Tensor]:
        """Return the sentences nearest to image features (n, D), and their cosines (n, count)."""
        value, index = _best([(0, self.t)], v, count)
        return [[self.texts[j] for j in row] for row in index.tolist()], value


@dataclass(frozen=True, eq=False)
class Shards:
    """Text embeddings on disk, and beside each file of them a Parquet file with the sentences.

    Attributes
    ----------
    features, sentences : tuple of Path
        Files of the same numbers, in order.
    """

    features: tuple[Path, ...]
    sentences: tuple[Path, ...]

    def nearest(self, v: Tensor, count: int) -> tuple[list[list[str]], Tensor]:
        """Return the sentences nearest to image features (n, D), and their cosines (n, count)."""
        value, index = _best(self._blocks(v.shape[1]), v, count)
        return self._texts(index), value

    def _arrays(self) -> Iterator[np.ndarray]:
        for path in self.features:
            yield np.load(path, mmap_mode="r")

    def _blocks(self, dim: int) -> Iterator[tuple[int, Tensor]]:
        start = 0
        for path, array in zip(self.features, self._arrays(), strict=True):
            if array.ndim != 2 or array.shape[1] != dim:
                raise ValueError(
                    f"{path.name} holds features of shape {array.shape}, but the encoder's have "
                    f"{dim} dimensions; use the encoder that made the shards."
                )
            for row in range(0, len(array), _BLOCK):
                block = torch.from_numpy(np.array(array[row : row + _BLOCK], dtype=np.float32))
                yield start + row, F.normalize(block, dim=1)
            start += len(array)

    def _texts(self, index: Tensor) -> list[list[str]]:
        """Look sentences up by their number over all shards, reading each file once."""
        import pandas as pd

        found, start = {}, 0
        for path, array in zip(self.sentences, self._arrays(), strict=True):
            here = sorted({i - start for i in index.flatten().tolist()} & set(range(len(array))))
            if here:
                column = pd.read_parquet(path, columns=["caption"])["caption"]
                found |= {start + i: str(column.iloc[i]) for i in here}
            start += len(array)
        return [[found[i] for i in row] for row in index.tolist()]


def captions(texts: Sequence[str], encoder: Encoder, store: Store | None = None) -> Captions:
    """Encode sentences, repetitions left out; with a store once and for all."""
    told = ConceptSet(texts, "{}", "captions")
    return Captions(told.words, told.embed(encoder, store)[0])


def text_file(path: str | Path, encoder: Encoder, store: Store | None = None) -> Captions:
    """Read a corpus of one sentence a line from a UTF-8 text file."""
    return captions(read_lines(path), encoder, store)


def shards(folder: str | Path) -> Shards:
    """Open a folder of LAION's embeddings.

    Parameters
    ----------
    folder : path
        Holds ``text_emb/text_emb_*.npy`` and ``metadata/metadata_*.parquet`` (or both side by
        side), the latter with a column ``caption``.

    Raises
    ------
    FileNotFoundError
        If there are none, or not as many of one kind as of the other.
    ImportError
        If no reader of Parquet files is installed.
    """
    folder = Path(folder).expanduser()
    features = tuple(sorted(folder.rglob("text_emb_*.npy"), key=_number))
    sentences = tuple(sorted(folder.rglob("metadata_*.parquet"), key=_number))
    if not features or [_number(p) for p in features] != [_number(p) for p in sentences]:
        raise FileNotFoundError(
            f"{str(folder)!r} holds {len(features)} files text_emb_*.npy and {len(sentences)} "
            "files metadata_*.parquet; it must hold the same numbers of both, at least one."
        )
    if find_spec("pyarrow") is None:  # said now, not after an hour of search
        raise ImportError(
            "Captions in Parquet files need the package pyarrow; add it with: pip install pyarrow."
        )
    return Shards(features, sentences)


def _number(path: Path) -> tuple[int, str]:
    digits = path.stem.rpartition("_")[2]
    return (int(digits), "") if digits.isdigit() else (-1, path.stem)


def _best(blocks, v: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` highest cosines (n, count) over blocks (start, features), and where."""
    value = v.new_zeros(len(v), 0)
    index = torch.zeros(len(v), 0, dtype=torch.int64)
    for start, t in blocks:
        s = v @ t.to(v).T
        rows = torch.arange(start, start + len(t)).expand(s.shape)
        value, order = torch.cat([value, s], 1).sort(dim=1, descending=True, stable=True)
        value = value[:, :count]
        index = torch.cat([index, rows], 1).gather(1, order[:, :count].cpu())
    return value, index
