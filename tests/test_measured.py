"""The numbers of the documentation are those of the published run, and are traced to their keys."""

import re

import measured
import pytest

KNOWN = {("06", "a"): 0.61286, ("06", "b"): -0.0449, ("02", "c"): 12.346}


@pytest.mark.parametrize("name", measured.PAGES)
def test_the_pages_have_the_numbers_of_the_published_run(name):
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


def test_numbers_are_rounded_like_those_they_replace():
    source = "<!-- from 06: a; b -->"
    line = f"| of 1.5, 4 | .6, 0.99 and -.10 {source} or 7.0 <!-- from 02: c --> |"
    expected = f"| of 1.5, 4 | .6, 0.61 and -.04 {source} or 12.3 <!-- from 02: c --> |"
    assert measured.rewritten(line, KNOWN) == expected
    assert measured.rewritten(expected, KNOWN) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [("x .5 <!-- from 06: z -->", "is no value"), (".5 <!-- from 06: a; b -->", "1 decimal")],
)
def test_sources_that_do_not_fit_are_refused(line, message):
    with pytest.raises(ValueError, match=message):
        measured.rewritten(line, KNOWN)
