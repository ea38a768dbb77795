"""The part of WordNet in data/: extracted line by line, and enough to grade every name."""

from pathlib import Path

import extract_wordnet
import pytest

from wwwlib import language, world
from wwwlib.language.concept_sets import find_data_noun
from wwwlib.studies import wordnet

PART = extract_wordnet.OUT


@pytest.fixture(scope="module")
def whole() -> Path:
    try:
        return find_data_noun()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_it_grades_the_world_s_names_as_the_whole_of_wordnet_does(whole):
    some, full = (wordnet.Hypernyms(language.read_synsets(path)) for path in (PART, whole))
    grades = set()
    for truth in world.SYNONYMS.values():
        for name in world.VOCABULARY:
            grade = wordnet.grade(name, truth, some)
            assert grade == wordnet.grade(name, truth, full), (name, truth)
            grades.add(grade)
    assert grades == {"right", "near", "wrong"}


def test_it_is_what_the_script_extracts_with_the_licence_at_its_head(whole):
    assert PART.read_text("utf-8") == extract_wordnet.part(whole)
    assert "Princeton University" in PART.read_text("utf-8")[:400]
