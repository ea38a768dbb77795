"""Kernels forked from one process: they have its variables, not each other's, and end with it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import explore
import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked under Linux")
CODE = "import os\nimport torch\nheld = os.getpid()\nx = torch.ones(9)"


def alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(pid):
    until = time.monotonic() + 30
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.1)
    return not alive(pid)


def value(client, expression):
    """Return the value of an expression in a kernel, as text."""
    client.nb.cells.append(new_code_cell(expression))
    cell = client.execute_cell(client.nb.cells[-1], len(client.nb.cells) - 1)
    return cell.outputs[0]["data"]["text/plain"]


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A folder where the first cell of a notebook has run, and the process that holds it."""
    cells = [new_markdown_cell("# A page"), new_code_cell(CODE), new_code_cell("page = 1\npage")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "explorer.ipynb")
    monkeypatch.setenv("JUPYTER_PATH", "elsewhere")
    held = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        explore.subprocess, "Popen", lambda *a, **k: held.append(popen(*a, **k)) or held[0]
    )
    explore.share(tmp_path / "explorer.ipynb", tmp_path / "store")
    monkeypatch.setattr(explore.subprocess, "Popen", popen)
    yield tmp_path, held[0]
    held[0].kill()
    held[0].wait(30)


def test_kernels_share_what_was_computed_and_nothing_else(shared):
    folder, held = shared
    assert os.environ["JUPYTER_PATH"].split(os.pathsep) == [str(folder), "elsewhere"]
    book = nbformat.read(folder / "explorer.ipynb", as_version=4)
    assert [cell.source for cell in book.cells] == ["# A page", "page = 1\npage"]
    assert book.metadata.kernelspec.name == "shared"
    one, other = (NotebookClient(new_notebook(), kernel_name="shared") for _ in range(2))
    with one.setup_kernel():
        with other.setup_kernel():
            pids = [int(value(kernel, "os.getpid()")) for kernel in (one, other)]
            assert len({*pids, held.pid}) == 3
            assert value(one, "held") == value(other, "held") == str(held.pid)
            assert value(one, "x.mul_(3).sum().item()") == "27.0"
            assert value(other, "x.sum().item()") == "9.0"
        assert ends(pids[1]) and value(one, "x.sum().item()") == "27.0"
        one.km.provisioner.process.kill()  # as a server does with a kernel that does not end
        assert ends(pids[0]) and alive(held.pid)


def test_code_that_fails_is_an_error_before_anything_is_served(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "elsewhere")
    cells = [new_code_cell("1 / 0"), new_code_cell("page = 1\npage")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "explorer.ipynb")
    with pytest.raises(ValueError, match="could not be analysed"):
        explore.share(tmp_path / "explorer.ipynb", tmp_path / "store")
