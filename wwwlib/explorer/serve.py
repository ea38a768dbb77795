"""Serve a notebook as a page without code, to this machine alone: the explorer behind Voilà.

The server listens on 127.0.0.1 and requires a token. Only the page's own controls work: no code can
be changed or run, no file is served, and nothing is loaded from elsewhere.
"""

import os
import secrets
import sys
from pathlib import Path

SETTINGS = Path(__file__).parent / "voila"  # limits, headers and templates


def command(notebook: Path, port: int, theme: str = "light") -> list[str]:
    """Return the command that serves a notebook; its environment is `environment`."""
    return [
        sys.executable, "-m", "voila", str(notebook), f"--port={port}", "--Voila.port_retries=0",
        "--no-browser", "--Voila.ip=127.0.0.1", "--Voila.auto_token=True", "--template=www",
        f"--theme={theme}", "--VoilaConfiguration.file_allowlist=^$",
    ]  # fmt: skip


def environment(token: str, **more: str) -> dict[str, str]:
    """Return the server's environment; its command line, which others could read, has no token."""
    others = os.environ.get("JUPYTER_PATH")
    return os.environ | {
        "JUPYTER_TOKEN": token,
        "JUPYTER_PATH": os.pathsep.join([str(SETTINGS.parent), *([others] if others else [])]),
        "JUPYTER_CONFIG_PATH": str(SETTINGS),
        **more,
    }


def serve(notebook: Path, port: int = 8866, theme: str = "light", **more: str) -> None:
    """Become the server, which ends its kernels when it is interrupted or terminated.

    Parameters
    ----------
    notebook : path
    port : int
        Where to listen.
    theme : {"light", "dark"}
    **more
        Further environment variables, which replace those that are set.
    """
    token = secrets.token_urlsafe(24)
    print(f"The explorer: http://127.0.0.1:{port}/?token={token}")
    print("The first page takes a minute or two: networks are analysed once. Ctrl-C ends it.")
    sys.stdout.flush()
    os.execve(sys.executable, command(notebook, port, theme), environment(token, **more))
