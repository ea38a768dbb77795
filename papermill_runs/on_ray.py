"""The grid of notebook runs on a Ray cluster: every notebook is a task, on a GPU if there are any.

Repository, run folder and store must lie where all machines of the cluster see them, under the same
path; so must the data. The runner keeps the record, here, and waits. Needs the extra ``ray``.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import ray
import side_by_side

CORES = 2  # of each notebook: the kernel, and what decodes for it
POLL = 0.2  # seconds between two looks at a task, and at whether the user interrupts


def connect() -> side_by_side.Launcher:
    """Join the cluster that RAY_ADDRESS names, or start one here; return what runs a notebook."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    return launch


def launch(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> int:
    """Run a command as a task of the cluster and return its exit code."""
    # Which GPU and how many cores is for the cluster to say, and it does so where the task runs.
    own = {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"}
    told = {
        name: value
        for name, value in environment.items()
        if name not in own and os.environ.get(name) != value
    }
    has = ray.cluster_resources()
    task = _process.options(
        num_cpus=min(CORES, int(has.get("CPU", 1))), num_gpus=int(has.get("GPU", 0) > 0)
    ).remote(command, str(folder), told, str(log))
    try:
        while not ray.wait([task], timeout=POLL)[0]:
            side_by_side.heed()
    except KeyboardInterrupt:
        ray.cancel(task, force=True)  # the notebook's process follows the worker that started it
        raise
    return ray.get(task)


@ray.remote(max_retries=0)  # what a dead machine took with it fails, and is run again when asked
def _process(command: list[str], folder: str, told: dict[str, str], log: str) -> int:
    environment = os.environ | told | {"WWW_STARTED_BY": str(os.getpid())}
    with open(log, "w") as said:
        return subprocess.call(command, cwd=folder, env=environment, stdout=said, stderr=said)
