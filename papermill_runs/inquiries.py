"""What the runner answers without running a notebook: lists, checks, downloads and comparisons."""

from __future__ import annotations

import argparse
from pathlib import Path

import profiles
from profiles import House, Job, Profile


def answer(
    asked: argparse.Namespace, house: House, profile: Profile, jobs: list[Job], folder: Path
) -> int:
    """Check, fetch or report, and return the exit code."""
    if asked.report:
        import report  # these import torch, for which a typing error should not wait

        print(report.write(folder), end="")
        return 0
    import check
    import fetch
    import needs
    import seen

    wanted = needs.load(profile.needs, house.data)
    if asked.fetch:
        return int(fetch.fetch(wanted) > 0)
    print(f"Profile {profile.name!r} is sound: {', '.join(job.name for job in jobs)}.")
    found = seen.compared(check.check(wanted), house.data)
    print(check.told(found, house.data))
    return int(any(one.fault for one in found))


def catalogue(house: House) -> int:
    """List the profiles with their notebooks."""
    for name in profiles.names(house):
        profile = profiles.load(house, name)
        expected = f" (about {profile.minutes:g} min)" if profile.minutes else ""
        print(f"{name}{expected}: {profile.description}")
        for notebook in profile.notebooks:
            print(f"    {notebook}")
    return 0
