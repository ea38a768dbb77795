"""Mutation testing: how many small changes of a module its own tests notice.

    make mutants MODULE=wwwlib/maps.py              90 mutants of seed 0
    make mutants MODULE=wwwlib/maps.py SET="--seed 1 --count 200"

cosmic-ray makes the mutants, such as ``>=`` for ``>`` or 2 for 1; annotations are left out, since
no test could notice them. Each mutant is written into a copy of the checkout, where a fork of this
process, which has imported the libraries but not the package, runs the tests until one fails.
Survivors are printed as differences: a gap in the tests, or a change that means nothing.
"""

import argparse
import ast
import difflib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MORE = {"contributions": ["tests/test_shapley.py"]}  # beside the test file of the same name
LIBRARIES = [
    "torch", "torchvision.transforms.v2", "timm", "open_clip", "scipy.stats", "seaborn",
    "safetensors.torch", "tqdm.auto", "captum.attr", "hypothesis", "xdist.plugin",
]  # fmt: skip
PLUGINS = ["xdist", "_hypothesis_pytestplugin", "no:cacheprovider"]
OPTIONS = ["-x", "-q", "-n0", "-o", "addopts=-m 'not slow' --strict-markers"]


def annotations(code):
    """Return the spans, as ((line, column), (line, column)), of what is no code but a type."""
    found = []
    for node in ast.walk(ast.parse(code)):
        found += [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp | ast.Subscript):
            name = getattr(node.targets[0], "id", "")
            found += [node] if name != name.upper() and name[0].isupper() else []  # an alias
    spans = (one for one in found if isinstance(one, ast.AST))
    return [((one.lineno, one.col_offset), (one.end_lineno, one.end_col_offset)) for one in spans]


def mutations(code):
    """Return (operator, occurrence) of each mutant of a file."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    types, nodes, found = annotations(code), list(ast_nodes(get_ast(code))), []
    for name in operator_names():
        if get_operator(name).arguments() or "no_op" in name.lower():
            continue
        places = (at for node in nodes for at, _ in get_operator(name)().mutation_positions(node))
        for number, at in enumerate(places):
            if not any(start <= tuple(at) < end for start, end in types):
                found.append((name, number))
    return found


def tested(tests, limit):
    """Run tests in a fork; whether they passed, and the seconds they took."""
    start, child = time.monotonic(), os.fork()
    if not child:
        os.setsid()
        sink = os.open("mutant.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        del sys.modules["__main__"].__file__  # or processes that tests spawn would run this file
        import pytest

        plugins = [word for one in PLUGINS for word in ("-p", one)]
        os._exit(int(pytest.main([*OPTIONS, *plugins, *tests])))
    while time.monotonic() - start < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what it started
    if not done:
        _, status = os.waitpid(child, 0)
    return status == 0, time.monotonic() - start


def copied(folder):
    """Copy the files of the checkout that git does not ignore, and work there."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    os.chdir(folder)
    sys.path[:0] = [str(folder / part) for part in ("", "papermill_runs", "data", "docs")]
    os.environ |= {"PYTHONPATH": os.pathsep.join(sys.path[:4])}
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}


def main():
    """Print the survivors, and how many mutants were killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", type=Path, help="such as wwwlib/maps.py")
    parser.add_argument("--count", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tests = [f"tests/test_{given.module.stem}.py", *MORE.get(given.module.stem, [])]
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    with tempfile.TemporaryDirectory() as place:
        copied(Path(place))
        sys.dont_write_bytecode = True
        for name in LIBRARIES:
            import_module(name)
        code, killed, sampled = given.module.read_text(), 0, 0
        passed, seconds = tested(tests, 600)
        assert passed, Path("mutant.out").read_text()
        every = mutations(code)
        random.Random(given.seed).shuffle(every)
        for name, number in every:
            mutant = mutate_code(code, get_operator(name)(), number)
            if sampled == given.count or mutant in (None, code):
                continue
            given.module.write_text(mutant)
            survived, _ = tested(tests, 20 + 4 * seconds)
            sampled, killed = sampled + 1, killed + (not survived)
            if survived:
                lines = difflib.unified_diff(code.splitlines(), mutant.splitlines(), n=0)
                print(*[*lines][2:], sep="\n", flush=True)
    print(f"{given.module}: {killed} of {sampled} mutants killed, of {len(every)} in all")


if __name__ == "__main__":
    main()
