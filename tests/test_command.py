"""The command line: its output files, its configuration file, and errors of one sentence."""

import ast
import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from wwwlib import world
from wwwlib.explorer.command import main

OPTIONS = "--network world/conv --encoder world --words world --layers layer4 -k 4"
WORLD = OPTIONS.split()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with probe images by class, test images, and photographs."""
    folder = tmp_path_factory.mktemp("command")
    for name, count, seed in (("probe", 72, 0), ("test", 72, 900), ("photos", 3, 7)):
        made = world.image_set(count, seed)
        for i in range(count):
            own = folder / name / (made.classes[made.label(i)] if name != "photos" else "")
            own.mkdir(parents=True, exist_ok=True)
            made.image(i).save(own / f"{i}.png")
    return folder


@pytest.fixture
def run(place, monkeypatch):
    """Run a command in the folder, with results kept there; return exit code and output."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("WWW_STORE", str(place / "store"))

    def call(*words):
        found = CliRunner().invoke(main, [str(word) for word in words])
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return found.exit_code, found.output

    return call


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_names_are_written_as_a_table(run, place, kind):
    code, output = run("names", *WORLD, "--images", "probe", "--test", "test", "--out", f"n.{kind}")
    assert code == 0 and "128 neurons" in output
    table = getattr(pd, f"read_{kind}")(place / f"n.{kind}")
    assert len(table) == 128 and {"layer", "neuron", "names", "scores", "auroc"} <= {*table}
    assert ".png" in str(table.exemplars[0])
    lines = output[output.index("neuron  AUROC") :].splitlines()[1:13]
    assert len(lines) == 12 and max(map(len, lines)) <= 100
    shown = [float(line.split()[2]) for line in lines]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == pytest.approx(table.auroc.max(), abs=0.01)
    if kind == "json":
        assert all(isinstance(names, list) for names in table.names)


def test_explain_prints_a_sentence_a_picture_and_writes_a_page(run, place):
    code, output = run("explain", "photos", *WORLD, "--images", "probe", "--report", "out/e.html")
    assert code == 0 and output.count("Predicted") == 3
    assert "untested" in output and (place / "out" / "e.html").stat().st_size > 10_000
    code, output = run("explain", "photos/0.png", *WORLD, "--images", "probe")
    assert code == 0 and "0.png: Predicted" in output
    code, output = run(
        "explain", "photos/0.png", *WORLD, "--images", "probe", "--instead-of", "hat"
    )
    assert code == 1 and "no class 'hat'" in output.splitlines()[-1]


def test_a_page_and_its_sentences_come_from_one_explanation(run, monkeypatch):
    """Breaks if `--report` explains pictures again, or says something else than without it."""
    words = ["explain", "photos", *WORLD, "--images", "probe", "--instead-of", "boat"]
    alone = re.findall(r"\d\.png: Predicted.*", run(*words)[1])
    monkeypatch.setattr("wwwlib.atlas.Atlas.explain", None)
    code, output = run(*words, "--report", "e.html")
    assert code == 0 and len(alone) == 3
    assert re.findall(r"\d\.png: Predicted.*", output) == alone
    assert all('rather than "boat"' in line for line in alone)


def test_report_and_compare_write_pages(run, place):
    options = [*WORLD, "--images", "probe", "--no-store"]
    code, output = run(
        "report", *options, "--out", "r.html", "--photo", "photos/1.png", "photos/2.png"
    )
    assert code == 0 and "r.html" in output
    data = (place / "r.html").read_text("utf-8").split('id="data">')[1].split("</script>")[0]
    found = json.loads(data)
    assert [one["name"] for one in found["pictures"]] == ["1.png", "2.png"]
    code, _ = run("compare", "world/conv", "world/conv-biased", *options[2:], "--out", "c.html")
    assert code == 0 and "Only of" in (place / "c.html").read_text("utf-8")


def test_options_may_stand_in_a_file(run, place):
    lines = 'network = "world/conv"\nencoder = "world"\nwords = "world"\nimages = "probe"\n'
    (place / "all.toml").write_text(lines + 'layers = ["layer4"]\nk = 4\nout = "t.csv"\n')
    assert run("names", "--config", "all.toml")[0] == 0
    table = pd.read_csv(place / "t.csv")
    code, _ = run("names", "--config", "all.toml", "--layers", "layer3,layer4")
    assert code == 0 and len(pd.read_csv(place / "t.csv")) > len(table)
    (place / "odd.toml").write_text('netwrok = "world/conv"\n')
    code, output = run("names", "--config", "odd.toml")
    assert code == 2 and "'netwrok', which is no option" in output


@pytest.mark.parametrize(
    "change, code, message",
    [
        (["--network", "world/nothing"], 1, "world/nothing"),
        (["--images", "nowhere"], 1, "nowhere"),
        (["--layers", "layer9"], 1, "layer9"),
        (["--words", "no/such/file"], 1, "no/such/file"),
        (["--encoder", "nothing"], 1, "nothing"),
        (["-k", "0"], 1, "k is 0"),
        (["--alpha", "2"], 1, "alpha"),
        (["-k", "many"], 2, "many"),
        (["--out", "n.xlsx"], 2, "n.xlsx"),
    ],
)
def test_a_wrong_option_is_refused_in_one_sentence(run, change, code, message):
    found, output = run("names", *WORLD, "--images", "probe", "--out", "n.csv", *change)
    [sentence] = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert found == code and message in sentence and "Traceback" not in output


def test_every_command_has_help_with_an_example():
    assert "names" in CliRunner().invoke(main, ["--help"]).output
    for name in main.commands:
        output = CliRunner().invoke(main, [name, "--help"]).output
        assert f"wwwlib {name} " in " ".join(output.split()), name


def test_the_package_runs_as_a_module(tmp_path):
    line = [sys.executable, "-m", "wwwlib", "--version"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env={**os.environ})
    assert done.returncode == 0 and "wwwlib" in done.stdout


def test_hostile_words_are_inert_in_tables_and_on_the_terminal(run, place):
    odd = [
        "=boat",
        "<script>rabbit</script>",
        r"$\frac{sea}{night}$",
        "@forest",
        "+desert",
        "boat",
        "sea",
    ]
    (place / "odd.txt").write_text("\n".join(odd), "utf-8")
    words = [*WORLD, "--images", "probe", "--words", "odd.txt"]
    assert run("names", *words, "--out", "odd.csv")[0] == 0
    table = pd.read_csv(place / "odd.csv", dtype=str, keep_default_na=False)
    found = {name for names in table.names for name in ast.literal_eval(names)}
    assert found and found <= set(odd)
    (place / "turned.txt").write_text("\u202egnp.exe", "utf-8")
    code, output = run("names", *words[:-1], "turned.txt", "--out", "odd.csv")
    assert code == 1 and "\u202e" not in output
    cells = [cell for row in table.to_numpy().tolist() for cell in row]
    for cell in cells:
        assert cell[:1] not in ("=", "+", "-", "@") or float(cell) < 0, cell
    code, output = run("explain", "photos/0.png", *words)
    assert code == 0 and "Predicted" in output and "\u202e" not in output


def test_escapes_in_names_do_not_reach_the_terminal(run, place):
    odd = place / "odd\x1b[31m.png"
    Image.new("RGB", (64, 64)).save(odd)
    code, output = run("explain", odd, *WORLD, "--images", "probe")
    assert code == 0 and "\x1b" not in output
