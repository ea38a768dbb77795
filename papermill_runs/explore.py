"""Serve the explorer alone, without code, to this machine: notebook 07 behind Voilà.

    python papermill_runs/explore.py [--port 8866] [--theme light]

It listens on 127.0.0.1 and requires the token that it prints. Only the page's own controls work: no
code can be changed or run, no file is served, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE.parent / "notebooks" / "07_explorer.ipynb"
STORE = HERE / "store"


def command(notebook: Path, port: int, theme: str = "light") -> list[str]:
    """Return the command that serves a notebook; its environment is `environment`."""
    return [
        sys.executable, "-m", "voila", str(notebook), f"--port={port}", "--Voila.port_retries=0",
        "--no-browser", "--Voila.ip=127.0.0.1", "--Voila.auto_token=True", "--template=www",
        f"--theme={theme}", "--VoilaConfiguration.file_allowlist=^$",
    ]  # fmt: skip


def environment(token: str) -> dict[str, str]:
    """Return the server's environment; its command line, which others could read, has no token."""
    others = os.environ.get("JUPYTER_PATH")
    return os.environ | {
        "JUPYTER_TOKEN": token,
        "JUPYTER_PATH": os.pathsep.join([str(HERE), *([others] if others else [])]),
        "JUPYTER_CONFIG_PATH": str(HERE / "voila"),  # voila.py: limits and headers
        "WWW_STORE": os.environ.get("WWW_STORE", str(STORE)),
    }


def main() -> None:
    """Become the server, which ends its kernels when it is interrupted or terminated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8866, help="where to listen")
    parser.add_argument("--theme", default="light", choices=["light", "dark"])
    asked = parser.parse_args()
    token = secrets.token_urlsafe(24)
    print(f"The explorer: http://127.0.0.1:{asked.port}/?token={token}")
    print("The first page takes a minute or two: networks are analysed once. Ctrl-C ends it.")
    sys.stdout.flush()
    os.execve(sys.executable, command(NOTEBOOK, asked.port, asked.theme), environment(token))


if __name__ == "__main__":
    main()
