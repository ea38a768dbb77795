"""Estimates of a profile's costs: they follow their formula, and grow with what they depend on."""

from pathlib import Path

import check
import estimate
import pytest
from estimate import READ, RUN, Cost, cost
from profiles import Job, Project, load, plan

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def costs(monkeypatch):
    """Costs without networks: ResNet-50's are one operation, CLIP's so many that they decide."""
    known = {"torchvision/resnet50": Cost(1, 10**8, 10**8), "slow": Cost(100, 3 * 10**8, 10**9)}
    monkeypatch.setattr(
        estimate, "cost", lambda name, encoder=False: known["slow" if encoder else name]
    )


def job(name, **own):
    own = {"target": "torchvision/resnet50", "probe": "imagenet", "batch_size": 256} | own
    return Job(name, ROOT, {}, {"encoder": "open_clip:ViT-B-32-quickgelu/openai"} | own)


def test_a_pass_takes_as_long_as_its_slowest_part():
    per = 1 / RUN
    whole, device = estimate.seconds(job("02_localization", encoder="world"))
    assert whole == pytest.approx(2 * 50_000 / READ) and device == pytest.approx(50_000 * per)
    whole, device = estimate.seconds(job("01_concept_discovery"))
    expected = 50_000 * (1 / READ + 100 * per + 1 / READ + 500 * per)
    assert whole == pytest.approx(expected)
    assert device == pytest.approx(50_000 * 606 * per)
    fewer, _ = estimate.seconds(job("01_concept_discovery", probe_count=500))
    assert fewer == pytest.approx(whole / 100)


def test_sizes_of_needs_are_added():
    assert (
        estimate.size(["6.3 GB", "over 1 GB", "under 2 MB", "7 kB", "size unknown"]) == 7.302007e9
    )


def test_the_text_has_time_disk_memory_and_the_formula():
    jobs = [job("00_start_here"), job("02_localization"), job("03_reasoning", batch_size=512)]
    said = estimate.text(jobs, ["1 GB"], 3600.0)
    for part in ("hours", "1.0 for the rest", "the longest is 03_reasoning", "1.0 GB of data",
                 "at most 51 GB of the device", estimate.FORMULA):  # fmt: skip
        assert part in said, said
    assert "nothing to estimate" in estimate.text(jobs[:1], [], 1.0)


@pytest.mark.parametrize("name", ["paper", "classroom"])
def test_every_notebook_and_probe_set_of_a_profile_is_known(name, monkeypatch):
    """Breaks if a profile gets a notebook, a probe set or a need that no estimate covers."""
    project = Project(ROOT)
    profile = load(project, name)
    jobs = [one for one in plan(project, profile, [], {}) if not one.name.startswith("00")]
    assert all(estimate.PASSES.get(one.name[:2]) for one in jobs)
    assert all(estimate.IMAGES.get(one.effective["probe"]) for one in jobs)
    sizes = [need.size for need in check.load(profile.needs, project.data)]
    assert all(estimate.size([one]) for one in sizes)
    monkeypatch.setattr(estimate, "cost", lambda name, encoder=False: Cost(1, 1, 1))
    assert "On one H100" in estimate.text(jobs, sizes, 60.0)


def test_operations_of_a_transformer_are_counted_with_its_attention(monkeypatch):
    monkeypatch.undo()
    found = cost.__wrapped__("torchvision/vit_b_16")
    assert 30e9 < found.operations < 40e9 and found.weights == pytest.approx(346e6, rel=0.01)


def test_images_that_are_counted_only_when_they_are_read_have_no_estimate():
    assert "no estimate" in estimate.text([job("01_concept_discovery", probe="a.py:f")], [], 5)
    assert estimate.size(["1,234 MB", "1.2 TB", "some"]) == pytest.approx(1.234e9 + 1.2e12)
