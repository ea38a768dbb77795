"""Execute notebooks, each in a process of its own: on this machine or as tasks of a Ray cluster.

``python execute.py '[source, output, parameters]'`` executes one notebook. If that fails, it exits
with 1, and the last line that it prints says why. It ends with the process that started it
(``WWW_STARTED_BY``). The runner starts several from threads; each has a share of the cores, and one
GPU while there are enough.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

KERNEL_START = 300  # seconds; a busy machine needs more than the default minute
POLL = 0.2  # seconds between two looks at a process, and at whether the user interrupts
RAY_CORES = 2  # of each notebook on a cluster: the kernel, and what decodes for it

# Runs a command in a folder with an environment, its output in a log; returns the exit code.
Launcher = Callable[[list[str], Path, dict[str, str], Path], int]
_STOP = threading.Event()  # set once the user has interrupted, or all is done
_THREAD = threading.local()  # .slot: the place of this thread, .of: how many there are


def execute(source: str, output: str, parameters: dict[str, Any]) -> str | None:
    """Execute a notebook with checked parameters; return None, or in one sentence why it failed.

    The paths may have no braces, which papermill would fill in.
    """
    # jsonschema's check of IRIs, which notebooks have none of, takes seconds to import.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            source, output, parameters, kernel_name="python3", language="python",
            progress_bar=False, start_timeout=KERNEL_START,
        )  # fmt: skip
    except PapermillExecutionError as error:
        return f"cell {error.cell_index + 1} raised {error.ename}: {error.evalue}"
    except DeadKernelError:
        return "the kernel died, killed or out of memory, before the notebook's end"
    except Exception as error:  # the runner records any failure and goes on
        return f"{type(error).__name__}: {error}"
    return None


def follow(parent: int) -> None:
    """End this process, and with it the kernel, once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(arguments: str) -> None:
    """Execute a notebook, with the arguments of `execute` in JSON, and end this process."""
    from ipykernel.kernelspec import write_kernel_spec

    parent = int(os.environ["WWW_STARTED_BY"])
    threading.Thread(target=follow, args=(parent,), daemon=True).start()
    with tempfile.TemporaryDirectory() as own:  # IPython's history needs a disk of this machine
        # The kernel "python3" is this very interpreter, whatever others are installed.
        write_kernel_spec(Path(own, "kernels", "python3"))
        paths = filter(None, [own, os.environ.get("JUPYTER_PATH")])
        os.environ |= {"IPYTHONDIR": own, "JUPYTER_PATH": os.pathsep.join(paths)}
        reason = execute(*json.loads(arguments))
    if reason:
        print(f"\n{one_line(reason)}", file=sys.stderr, flush=True)
        os._exit(1)  # so that nothing follows it


def one_line(text: str, limit: int = 600) -> str:
    """Return text without escape sequences, control characters and line breaks, cut at a limit."""
    plain = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)", "", text)
    words = " ".join(plain.split())
    return "".join(c for c in words if c.isprintable())[:limit]


def each(step: Callable[[Any], str], jobs: list, at_once: int) -> Iterator[tuple[Any, str]]:
    """Take a step for every job, several at once, and yield job and outcome as they end."""
    _STOP.clear()
    slots = iter(range(at_once))

    def settle() -> None:
        _THREAD.slot, _THREAD.of = next(slots), at_once

    def take(job: Any) -> str:
        if _STOP.is_set():  # a second interruption has cut the first one's end short
            raise KeyboardInterrupt
        return step(job)

    pool = ThreadPoolExecutor(at_once, initializer=settle)
    try:
        waiting = {pool.submit(take, job): job for job in jobs}
        for one in as_completed(waiting):
            yield waiting[one], one.result()
    finally:  # after an interruption, too: all running steps end
        _STOP.set()
        pool.shutdown(cancel_futures=True)


def launch(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> int:
    """Run a command as a process of this machine and return its exit code."""
    environment = environment | {"WWW_STARTED_BY": str(os.getpid())}
    with log.open("w") as output:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            while child.poll() is None:
                if _STOP.wait(POLL):
                    raise KeyboardInterrupt
            return child.returncode
        finally:
            child.kill()


def environment() -> dict[str, str]:
    """Return the variables of a process started by this thread: its cores and its GPU."""
    slot, of = getattr(_THREAD, "slot", 0), getattr(_THREAD, "of", 1)
    found = {}
    if of > 1 and "OMP_NUM_THREADS" not in os.environ:
        found["OMP_NUM_THREADS"] = str(max(1, cores() // of))
    if of > 1 or "LOCAL_RANK" in os.environ:
        place = slot if of > 1 else int(os.environ["LOCAL_RANK"])
        if devices := gpus():
            found["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
    return found


def cores() -> int:
    """Return how many cores this process may use."""
    known = hasattr(os, "sched_getaffinity")  # only on some systems
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch  # slow, and only needed here

    return [str(i) for i in range(torch.cuda.device_count())]


def connect() -> Launcher:
    """Join the Ray cluster that RAY_ADDRESS names, or start one here; return its launcher.

    Repository, run folder, store and data must lie under the same paths on all its machines.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"--ray needs the extra `ray`: pip install '.[ray]' ({error}).") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    return launch_on_ray


def launch_on_ray(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> int:
    """Run a command as a task of the cluster, on a GPU if there are any; return its exit code."""
    import ray

    own = {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"}  # set by the cluster where the task runs
    changed = dict(environment.items() - os.environ.items())
    passed = {name: value for name, value in changed.items() if name not in own}
    has = ray.cluster_resources()
    # What a dead machine took with it fails, and runs again with the next command.
    task = ray.remote(max_retries=0)(_process).options(
        num_cpus=min(RAY_CORES, int(has.get("CPU", 1))), num_gpus=int(has.get("GPU", 0) > 0)
    )
    running = task.remote(command, str(folder), passed, str(log))
    try:
        while not ray.wait([running], timeout=POLL)[0]:
            if _STOP.is_set():
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        ray.cancel(running, force=True)  # the notebook's process ends with its worker
        raise
    return ray.get(running)


def _process(command: list[str], folder: str, passed: dict[str, str], log: str) -> int:
    return launch(command, Path(folder), os.environ | passed, Path(log))


if __name__ == "__main__":
    main(sys.argv[1])
