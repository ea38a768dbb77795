"""A run compared with the paper's tables: hand-worked distances, and runs that do not compare."""

import csv
import json

import pytest
import report

SETTING = ["ResNet-50", "ImageNet val", "Broden"]
PAPER = """table,target,probe,concepts,method,metric,value,stderr,source
2,ResNet-50,ImageNet val,Broden,WWW,F1,0.10,0.03,nowhere
2,ResNet-50,ImageNet val,Broden,WWW,hit rate,0.20,,nowhere
"""


def run(folder, setting, dry_run=None):
    """Write a run of one notebook with three cells."""
    record = {"table": "final | layer", "setting": setting, "method": "WWW", "neurons": 9}
    cells = [
        record | {"metric": "F1", "mean": 0.15, "stderr": 0.04},
        record | {"metric": "hit rate", "mean": 0.26, "stderr": 0.02},
        record | {"metric": "CLIP cos", "mean": 0.9, "stderr": None},
    ]
    (folder / "04").mkdir(parents=True)
    (folder / "04" / "results.json").write_text(json.dumps({"cells": cells}))
    manifest = {"notebooks": {"04": {"state": "done"}, "05": {"state": "failed"}}}
    manifest |= {"dry_run": dry_run} if dry_run else {}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "paper.csv").write_text(PAPER)
    return folder


def test_the_difference_is_told_in_standard_errors(tmp_path):
    """sqrt(.04² + .03²) is .05, so .15 lies one apart from .10; without the paper's, .06 / .02."""
    found = report.cells(run(tmp_path, SETTING), tmp_path / "paper.csv")
    assert found["apart"].tolist()[:2] == pytest.approx([1.0, 3.0])
    assert found["paper"].tolist()[:2] == [0.1, 0.2]
    assert found.loc[2, ["apart", "paper"]].isna().all()


def test_the_papers_figure_belongs_to_published_labels_where_the_table_has_them(tmp_path):
    """A row of our own run is then no reproduction, and is compared with nothing."""
    folder = run(tmp_path, SETTING)
    (folder / "paper.csv").write_text(PAPER.replace("WWW", "Network Dissection"))
    results = folder / "04" / "results.json"
    cells = json.loads(results.read_text())["cells"][:1]
    names = ("Network Dissection", "Network Dissection as published")
    rows = [cells[0] | {"method": name} for name in names]
    for given, expected in ((rows, [0.1]), (rows[:1], [0.1])):
        results.write_text(json.dumps({"cells": given}))
        found = report.cells(folder, folder / "paper.csv")
        assert found["paper"].dropna().tolist() == expected
        assert found["paper"].isna().tolist()[:-1] == [True] * (len(given) - 1)


def test_the_report_is_written_and_lists_what_the_paper_file_lacks(tmp_path):
    text = report.write(run(tmp_path, SETTING), tmp_path / "paper.csv")
    assert "3 cells; 3 in a setting of the paper's; of 2 of them" in text
    assert "lacks 1 figures of ResNet-50, ImageNet val, Broden" in text
    assert "final | layer" in text.split("```")[1], (
        "a table in a block, where no title ends a column"
    )
    assert (tmp_path / "report.md").read_text() == text
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert [row["metric"] for row in rows] == ["F1", "hit rate", "CLIP cos"]


def test_a_run_in_another_setting_compares_with_nothing_and_says_so(tmp_path):
    text = report.write(run(tmp_path, None), tmp_path / "paper.csv")
    assert "No cell is in the paper's setting" in text


def test_a_dry_run_says_that_its_figures_mean_nothing(tmp_path):
    text = report.write(run(tmp_path, SETTING, "DRY RUN: nothing"), tmp_path / "paper.csv")
    assert text.startswith("**DRY RUN: nothing**")
    assert "DRY RUN: nothing" in (tmp_path / "report.csv").read_text()


def test_without_a_run_or_its_tables_a_sentence_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"There is no run in .*; run the profile first"):
        report.write(tmp_path / "none")
    run(tmp_path, SETTING)
    (tmp_path / "04" / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="no finished tables; run 04_quantitative_tables"):
        report.write(tmp_path)
