"""Kernels that share memory: each is forked from one process that has computed what pages read.

    python papermill_runs/forked.py hold CODE SOCKET READY     compute, then fork when asked
    python papermill_runs/forked.py kernel SOCKET FILE         ask for a kernel, and stand for it

The first process runs a file of code in one thread, since threads do not outlive a fork, writes
READY, and ends with its parent. A kernel ends with the process that stands for it, which the server
signals, and the other way round.
"""

from __future__ import annotations

import gc
import os
import runpy
import signal
import socket
import sys
import threading
from pathlib import Path


def hold(code: str, address: str, ready: str) -> None:
    """Run a file of code, then fork a kernel for each connection; return in a kernel only."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # a thread
    parent = os.getppid()
    if not (first := os.fork()):  # computes in all threads what is not stored yet
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        runpy.run_path(code, run_name="__main__")
        os._exit(0)
    if os.waitpid(first, 0)[1]:
        sys.exit(1)
    namespace = runpy.run_path(code, run_name="__main__")
    from ipykernel.kernelapp import IPKernelApp  # here, so that kernels share it, too

    gc.collect()
    gc.freeze()  # a collection in a kernel would copy what it looks at
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        server.settimeout(1)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        Path(ready).touch()
        while os.getppid() == parent:
            try:
                asked, _ = server.accept()
            except TimeoutError:
                continue
            if not os.fork():
                server.close()
                return become(IPKernelApp, asked, namespace)
            asked.close()


def become(application: type, asked: socket.socket, namespace: dict) -> None:
    """Run a kernel in this process, with the variables of a namespace, until either side ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    asked.settimeout(None)
    file = asked.recv(4096).decode()
    asked.sendall(str(os.getpid()).encode())
    threading.Thread(target=lambda: (asked.recv(1), os._exit(0)), daemon=True).start()
    app = application.instance()
    app.initialize(["-f", file])
    app.shell.user_ns.update(namespace)
    app.start()


def stand_for(address: str, file: str) -> None:
    """Ask for a kernel with a connection file, pass signals on to it, and end when it ends."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(address)
        asking.sendall(file.encode())
        kernel = int(asking.recv(64))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(kernel, number))
        asking.recv(1)


if __name__ == "__main__":
    {"hold": hold, "kernel": stand_for}[sys.argv[1]](*sys.argv[2:])
