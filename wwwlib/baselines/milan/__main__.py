"""Train MILAN's networks for the concept world again: `python -m wwwlib.baselines.milan`.

The last step of `make world`, since it sees through the world's convolutional network. What comes
of it ends in the same record, `training.json`.
"""

import json
import time

import torch

from wwwlib.baselines.milan.describer import WORLD, load, save
from wwwlib.baselines.milan.training import UNSEEN, Sets, accuracy, fill, train
from wwwlib.store import file_digest


def main() -> None:
    """Train, save, test what was saved, and put it on record."""
    torch.set_num_threads(1)  # so that more cores do not change the last bits
    start = time.monotonic()
    save(train(), WORLD)
    describer = load(WORLD)
    bank = fill(describer.encoder, describer.stages, *UNSEEN, least=15)
    entry = {
        "sets told right": accuracy(describer, Sets(bank, describer.vocabulary, seed=1)),
        "sha256": file_digest(WORLD),
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    path = WORLD.with_name("training.json")
    record = {**json.loads(path.read_text()), "milan": entry}
    path.write_text(json.dumps(dict(sorted(record.items())), indent=2) + "\n")
    print(f"{path}: milan")


if __name__ == "__main__":
    main()
