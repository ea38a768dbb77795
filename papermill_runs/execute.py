"""Run one notebook in this process: the runner starts it once for each, and survives it.

``python execute.py job.json`` executes what the job says and exits with 0; else it leaves one
sentence in the job's ``reason`` file and exits with 1. Should the process that started it (its
number is in ``WWW_STARTED_BY``) die, so does this.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

KERNEL_START = 300  # seconds; a busy machine needs more than the usual minute


def execute(source: str, output: str, parameters: dict) -> str | None:
    """Execute a notebook and return None, or in one sentence why it failed.

    Parameters
    ----------
    source, output : str
        Paths without braces, which papermill would fill in.
    parameters : dict
        Values, already checked against the declared ones.
    """
    try:
        papermill.execute_notebook(
            source,
            output,
            parameters,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=KERNEL_START,
        )
    except PapermillExecutionError as error:
        said = " ".join(str(error.evalue).split())
        return f"cell {error.cell_index + 1} raised {error.ename}: {said:.500}"
    except DeadKernelError:
        return "the kernel died, killed or out of memory, before the notebook's end"
    except Exception as error:  # whatever it is, the runner must hear of it and go on
        return f"{type(error).__name__}: {' '.join(str(error).split()):.500}"
    return None


def follow(parent: int) -> None:
    """End this process, and with it the kernel, once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    starter = int(os.environ["WWW_STARTED_BY"])
    threading.Thread(target=follow, args=(starter,), daemon=True).start()
    with tempfile.TemporaryDirectory() as own:  # IPython's history needs a disk of this machine
        os.environ["IPYTHONDIR"] = own
        reason = execute(job["source"], job["output"], job["parameters"])
    if reason:
        Path(job["reason"]).write_text(reason, encoding="utf-8")
    sys.exit(bool(reason))
