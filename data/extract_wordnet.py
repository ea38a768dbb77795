"""Extract the part of WordNet that grades names in the concept world, with WordNet's licence.

Usage: ``python data/extract_wordnet.py [folder with data.noun]``. Kept are all synsets of the
world's words and their hypernyms, so that paths between words are those of the whole WordNet.
"""

import sys
from pathlib import Path

from wwwlib import world
from wwwlib.language import read_synsets
from wwwlib.language.concept_sets import find_data_noun
from wwwlib.studies.wordnet import Hypernyms

OUT = Path(__file__).parent / "wordnet" / "data.noun"


def part(path: Path) -> str:
    """Return the lines of data.noun that are kept, in their order."""
    tree = Hypernyms(read_synsets(path))
    kept = {one for own in tree.senses(world.VOCABULARY) for one in tree.above(own)}
    lines = path.read_text("utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line[:2] == "  " or "n" + line[:8] in kept)


if __name__ == "__main__":
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(part(find_data_noun(*sys.argv[1:])), encoding="utf-8")
    print(f"{len(read_synsets(OUT)):,} synsets in {OUT}")
