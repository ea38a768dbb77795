"""The numbers of the documentation are those of their records, and each has a source."""

import json
import re

import measured
import pytest

KNOWN = {
    ("06", "a"): 0.61286, ("06", "b"): -0.0449, ("02", "c"): 12.346, ("data", "count"): 2_343,
    ("data", "digest"): "ab" * 32,
}  # fmt: skip
EVERY_NUMBER = ("README.md", "data/README.md", "data/CARDS.md")


@pytest.mark.parametrize("name", measured.PAGES)
def test_the_pages_have_the_numbers_of_the_records(name):
    text = (measured.ROOT / name).read_text("utf-8")
    assert measured.SOURCE.search(text), "nothing is traced"
    assert measured.rewritten(text, measured.values()) == text, "run measured.py"


def test_every_measured_decimal_of_the_tables_has_a_source():
    text = (measured.ROOT / "docs/trust.md").read_text("utf-8")
    tables = text[text.index("## Names") : text.index("## The networks of the concept world")]
    for row in re.findall(r"^\| (?!question|---).*", tables, re.M):
        cell = row.split(" | ")[1]
        traced = sum(len(one[2].split("; ")) for one in measured.SOURCE.finditer(cell))
        shown = len(measured.DECIMAL.findall(measured.SOURCE.sub("", cell)))
        assert traced == shown, row


@pytest.mark.parametrize("name", EVERY_NUMBER)
def test_every_number_of_a_page_has_a_source(name):
    """Breaks if a figure is written by hand, or a setting differs from the code that has it."""
    assert not measured.untraced((measured.ROOT / name).read_text("utf-8"), measured.values())


def test_every_value_of_the_training_record_is_on_the_pages_of_the_data():
    pages = [(measured.ROOT / name).read_text("utf-8") for name in EVERY_NUMBER[1:]]
    shown = {
        key for page in pages for one in measured.SOURCE.findall(page) for key in one[1].split("; ")
    }
    record = json.loads((measured.ROOT / "data/world/training.json").read_text("utf-8"))
    assert {f"{name}: {key}" for name, own in record.items() for key in own} <= shown


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is right for .61 of 24 <!-- from data: count --> images.", [".61"]),
        ("9 of .61 <!-- from 06: a --> and 7 of 5\n\n5 <!-- set in a.py -->", ["9", "7", "5"]),
        ("24,000 images, .05, 128\n<!-- set in a.py -->", ["128"]),
        ("| 5 |\n| 5 <!-- set in a.py --> |\n\n- 5\n- 5 <!-- set in a.py -->", ["5", "5"]),
        (f"`{'ab' * 32}` <!-- from data: digest --> and `{'cd' * 32}`", ["cd" * 32]),
        ("Python 3.11, ViT-B-32, layer4, `x = 5`, [a](b7.md), CVPR 2024\n\n    y = 3\n", []),
        ("-.5 and -7", ["-.5", "-7"]),
    ],
)
def test_numbers_without_a_source_are_found(text, found, tmp_path):
    (tmp_path / "a.py").write_text("SIZES = (24_000, 5, 0.05)")
    assert [one.split()[-1].strip("`") for one in measured.untraced(text, KNOWN, tmp_path)] == found


def test_integers_and_digests_are_written_beside_decimals():
    source = "<!-- from data: count; digest --> of .99 <!-- from 06: a -->"
    line = f"of 7 | 2,000 | `{'0' * 64}` {source}"
    expected = f"of 7 | 2,343 | `{'ab' * 32}` {source.replace('.99', '.61')}"
    assert measured.rewritten(line, KNOWN) == expected


def test_numbers_are_rounded_like_those_they_replace():
    source = "<!-- from 06: a; b -->"
    line = f"| of 1.5, 4 | .6, 0.99 and -.10 {source} or 7.0 <!-- from 02: c --> |"
    expected = f"| of 1.5, 4 | .6, 0.61 and -.04 {source} or 12.3 <!-- from 02: c --> |"
    assert measured.rewritten(line, KNOWN) == expected
    assert measured.rewritten(expected, KNOWN) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [("x .5 <!-- from 06: z -->", "is no value"), (".5 <!-- from 06: a; b -->", "1 numbers")],
)
def test_sources_that_do_not_fit_are_refused(line, message):
    with pytest.raises(ValueError, match=message):
        measured.rewritten(line, KNOWN)
