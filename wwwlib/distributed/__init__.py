"""Passes over images: in one process, under torchrun, or on a Ray cluster, with equal results.

A `Pass` maps each batch to a state and merges the states of neighbouring batches; `run` does so for
all images, checkpoints, and keeps the result in the store. Merging is exact, so results do not
depend on how images were divided among processes. Two mechanisms divide them:

- Under ``torchrun`` every process (rank) takes one stretch of whole batches, and rank 0 gathers and
  merges the states over `torch.distributed` (gloo). Every rank must make the same calls in the same
  order; all receive the result. Each rank keeps its own checkpoint, from which an elastic restart
  resumes. Programs that follow one another under one ``torchrun``, such as the kernels of several
  notebooks, need distinct values of the environment variable ``WWW_GROUP``, equal on all ranks.
- With ``actors=n``, Ray Data decodes images in tasks and applies the pass in n actors. Finished
  stretches are kept in the store, so that a stopped run continues. Needs the extra ``ray``.
"""

from wwwlib.distributed.passes import Options, Pass, run
from wwwlib.distributed.states import State, class_sums, class_totals, concatenate, merge_class_sums
from wwwlib.distributed.workers import ranks
