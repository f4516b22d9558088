"""Where the lesions of the held-out cases lie, and a model's false positives, support by support.

    python scripts/places.py PROJECT JOB

JOB is a finished prediction, as 0008-predict, of a project with one target.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.advice import places
from napari_backsplit.backend.volume import read_label_map


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("job")
    given = parser.parse_args()
    predictions = given.project / "jobs" / given.job / "predictions"
    with Project.open(given.project, read_only=True) as project:
        cases = project.test_cases()
        predicted = {
            case: np.asarray(read_label_map(predictions / f"{case}.nii.gz").array == 1)
            for case in cases
        }
        for place in places(project, cases, predicted):
            print(
                f"{place.support}: holds {place.holds:.0%} of the lesions, touches "
                f"{place.touches:.0%}, {place.false_positives} false positives"
            )


if __name__ == "__main__":
    main()
