"""A run compared with the paper's tables: hand-worked distances, and cells that were not run."""

import json

import pandas as pd
import pytest
import report

from wwwlib.studies import literature

SETTING = ["ResNet-50", "ImageNet val", "Broden"]
PAPER = """table,target,probe,concepts,method,metric,value,stderr,source
2,ResNet-50,ImageNet val,Broden,WWW,F1,0.10,0.03,nowhere
2,ResNet-50,ImageNet val,Broden,WWW,hit rate,0.20,,nowhere
2,ResNet-50,ImageNet val,Broden,WWW,mpnet cos,0.20,,nowhere
2,ResNet-50,Broden,Broden,Network Dissection,F1,0.30,0.00,nowhere
3,ViT-B/16,ImageNet val,Broden,WWW,F1,0.10,0.03,nowhere
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
    wins = {"final": {"F1": "WWW, not significantly above MILAN"}}
    content = {"cells": cells, "wins": wins}
    (folder / "04" / "results.json").write_text(json.dumps(content))
    manifest = {"notebooks": {"04": {"state": "done"}, "05": {"state": "failed"}}}
    manifest |= {"dry_run": dry_run} if dry_run else {}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "paper.csv").write_text(PAPER)
    return folder


def compared(folder):
    return report.compare(report.cells(folder), pd.read_csv(folder / "paper.csv"))


def test_a_difference_is_judged_by_two_standard_errors(tmp_path):
    """sqrt(.04² + .03²) is .05, so .15 is within two of .10; .06 is three times .02."""
    found = compared(run(tmp_path, SETTING)).set_index(["target", "method", "metric"])
    ours = found.loc["ResNet-50", "WWW"]
    assert ours["difference"].tolist()[:2] == pytest.approx([0.05, 0.06])
    assert ours["within two standard errors"].tolist() == ["yes", "no", "not run here"]
    assert ours["note"].tolist() == ["", "", "no mpnet cos"]


def test_every_cell_of_the_paper_has_a_row_and_a_reason(tmp_path):
    found = compared(run(tmp_path, SETTING))
    assert found[["target", "method", "metric", "value"]].equals(
        pd.read_csv(tmp_path / "paper.csv")[["target", "method", "metric", "value"]]
    )
    notes = dict(zip(found.target + found.method, found.note, strict=True))
    assert notes["ResNet-50Network Dissection"] == "no row of Network Dissection"
    assert notes["ViT-B/16WWW"] == "no table of ViT-B/16 in this setting"


def test_the_papers_figure_belongs_to_published_labels_where_the_table_has_them(tmp_path):
    """A row of our own run is then no reproduction, and is compared with nothing."""
    folder = run(tmp_path, SETTING)
    results = folder / "04" / "results.json"
    cells = json.loads(results.read_text())["cells"][:1]
    names = ("Network Dissection", "Network Dissection as published")
    rows = [cells[0] | {"method": name, "mean": i} for i, name in enumerate(names)]
    for given, expected in ((rows, [1]), (rows[:1], [0])):
        results.write_text(json.dumps({"cells": given}))
        found = compared(folder)
        assert found[found.method == "Network Dissection"]["ours"].tolist() == expected


def test_the_report_is_written_with_all_cells_and_the_claims_of_significance(tmp_path):
    text = report.write(run(tmp_path, SETTING), tmp_path / "paper.csv")
    assert "have 5 cells; 2 have figures here, 1 of 2 figures within two standard errors" in text
    assert "3 are not run here" in text and "Table 3" in text
    assert "04, final: F1: WWW, not significantly above MILAN" in text
    assert (tmp_path / "report.md").read_text() == text
    assert len(pd.read_csv(tmp_path / "report.csv")) == 5


def test_a_run_in_another_setting_compares_with_nothing_and_is_kept(tmp_path):
    text = report.write(run(tmp_path, None), tmp_path / "paper.csv")
    assert "0 have figures here" in text
    rows = pd.read_csv(tmp_path / "report.csv")
    assert rows["ours"].dropna().tolist() == [0.15, 0.26, 0.9] and len(rows) == 8


def test_validation_images_of_places_are_marked(tmp_path):
    (folder := run(tmp_path, ["ResNet-18 (Places365)", "Places365 test", "Broden"]))
    found = report.compare(report.cells(folder), pd.read_csv(literature.PATH))
    marked = found[found["run"].notna()]["note"]
    assert len(marked) == 3 and marked.str.contains("36,500 validation images").all()
    assert len(found) == 93


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
