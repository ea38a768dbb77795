"""Several notebooks at once: who runs where, and how all of them end when the user says so.

Each is a process of its own in any case; the threads here only wait for them. Notebooks that look
at the same images share the work through the store, and each has one GPU to itself while there are
enough. Under ``torchrun`` the first process keeps the record of the run; the others run the same
notebooks beside it, into a folder that goes again, and so take over shards of its passes.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from profiles import Job

# Run a command, in a folder, with an environment, its words in a log: the exit code.
Launcher = Callable[[list[str], Path, dict[str, str], Path], int]
_STOP = threading.Event()
_MINE = threading.local()  # .slot: which of the places side by side this thread has
SHARD = "2048"  # images: small enough that notebooks share the passes of a small profile, too


def each(step: Callable[[Job], str], jobs: list[Job], at_once: int) -> Iterator[tuple[Job, str]]:
    """Take a step for every job, so many at once, and yield what each said, as they end.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupts: after all that ran has ended.
    """
    _STOP.clear()
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(at_once):
        slots.put(slot)

    def settle() -> None:
        _MINE.slot, _MINE.of = slots.get(), at_once

    pool = ThreadPoolExecutor(at_once, initializer=settle)
    try:
        waiting = {pool.submit(step, job): job for job in jobs}
        for one in as_completed(waiting):
            yield waiting[one], one.result()
    finally:  # an interruption, too
        _STOP.set()
        pool.shutdown(cancel_futures=True)


def launch(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> int:
    """Run a command as a process of this machine and return its exit code."""
    environment = environment | {"WWW_STARTED_BY": str(os.getpid())}
    with log.open("w") as said:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        try:
            while True:
                try:
                    return child.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    heed()
        finally:
            child.kill()


def heed() -> None:
    """Raise in a thread of `each` what the user's interruption raised in the main one."""
    if _STOP.is_set() and threading.current_thread() is not threading.main_thread():
        raise KeyboardInterrupt


def environment() -> dict[str, str]:
    """Return what a process started by this thread should know of its place among the others."""
    slot, of = getattr(_MINE, "slot", None), getattr(_MINE, "of", 1)
    if slot is None and "LOCAL_RANK" not in os.environ:
        return {}
    found = {}
    if slot is not None:  # each process would take all cores, and they would wait for one another
        own = {"OMP_NUM_THREADS": str(max(1, _cores() // of)), "WWW_SHARD": SHARD}
        found = {name: os.environ.get(name, value) for name, value in own.items()}
    gpus = _gpus()
    if gpus:
        place = int(os.environ.get("LOCAL_RANK", "0")) if slot is None else slot
        found["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    return found


def _cores() -> int:
    known = hasattr(os, "sched_getaffinity")  # only some systems tell which are this process's own
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def _gpus() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch  # slow, and a typing error should not wait for it

    return [str(i) for i in range(torch.cuda.device_count())]


def helper() -> int:
    """Return the rank of this process beside the one that keeps the record, which has 0."""
    return int(os.environ.get("RANK", "0"))
