"""Reading a project: cases, images, masks, splits. It takes no lock and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_backsplit.backend.errors import ProjectError
from napari_backsplit.backend.files import read_json, sha256
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.project import masks as maskery
from napari_backsplit.backend.project import soft as softness
from napari_backsplit.backend.project import splits
from napari_backsplit.backend.project.schema import Case, Image, Provenance, Schema, parse
from napari_backsplit.backend.project.verdicts import Verdict, last_of, read_verdicts

FILE = "project.json"


class ProjectReader:
    """What can be asked of a project folder.

    Attributes
    ----------
    folder : Path
    cases_folder : Path
        Where masks and verdicts are: in the folder, or in a snapshot of it.
    changed : Signal
        Emits the id of the case that changed, "" for the project as a whole. It is emitted
        in the thread that made the change.
    """

    changed = Signal(str)

    def __init__(self, folder: Path, schema: Schema, cases: Path | None = None) -> None:
        self.folder = folder
        self.cases_folder = cases or folder / "cases"
        self._schema = schema

    @property
    def schema(self) -> Schema:
        """The present content of project.json, frozen."""
        return self._schema

    def reload(self) -> None:
        """Read project.json again: a reader's way to see what the writer did."""
        self._schema, _ = read_schema(self.folder)
        self.changed.emit("")

    def case(self, case: str) -> Case:
        """Return a case.

        Raises
        ------
        ProjectError
            There is no such case.
        """
        if case not in self._schema.cases:
            raise ProjectError(f"There is no case {case!r}.", "Choose one of the project's cases.")
        return self._schema.cases[case]

    def case_ids(self) -> tuple[str, ...]:
        """Return the ids of all cases."""
        return tuple(self._schema.cases)

    def training_cases(self) -> tuple[str, ...]:
        """Return the cases to train on: not reserved, with a reference and every channel."""
        return tuple(
            case
            for case, value in self._schema.cases.items()
            if not value.test and not self.problems(case)
        )

    def test_cases(self) -> tuple[str, ...]:
        """Return the cases that are reserved for the test."""
        return tuple(case for case, value in self._schema.cases.items() if value.test)

    def problems(self, case: str) -> tuple[str, ...]:
        """Say what keeps a case from being trained on, () if nothing does."""
        lacking = [f"lacks the channel {name}" for name in self.case(case).missing_channels]
        unmarked = [self._problem_of(case, name) for name in self._schema.target_names]
        rejected = ["was rejected in review"] * self._is_rejected(case)
        return (*lacking, *filter(None, unmarked), *rejected)

    def rejected(self, case: str) -> bool:
        """Whether a person rejected the case, or a reference of it."""
        facts = (self.facts(case, name) for name in self._schema.target_names)
        masks = any(known is not None and known.review == "rejected" for known in facts)
        return masks or self._is_rejected(case)

    def _is_rejected(self, case: str) -> bool:
        judged = self.verdict(case)
        return judged is not None and judged.verdict == "rejected"

    def _problem_of(self, case: str, target: str) -> str:
        record = self.provenance(case, target)
        if record is None:
            return f"has no mask of {target}"
        rejected = record.review == "rejected"
        return f"has a mask of {target} that was rejected in review" if rejected else ""

    def geometry(self, case: str) -> Geometry:
        """Return the grid of a case; no file is read."""
        return self.case(case).grid.geometry()

    def image_paths(self, case: str) -> list[Path]:
        """Return the images of a case in the order of the channels.

        Raises
        ------
        ProjectError
            A channel is missing.
        """
        value = self.case(case)
        if value.missing_channels:
            raise ProjectError(
                f"{case} lacks the channel {', '.join(value.missing_channels)}.",
                "Leave the case out, or import it with all channels.",
            )
        return [self.folder / value.images[name].file for name in self._schema.channel_names]

    def mask_path(self, case: str, structure: str) -> Path | None:
        """Return the mask of a structure, None if the case has none."""
        path = self._mask_file(case, structure)
        return path if path.exists() else None

    def masks(self, case: str) -> dict[str, NDArray[np.bool_]]:
        """Read every mask of a case: structure -> bool, (z, y, x), on the case's grid."""
        paths = {s.name: self.mask_path(case, s.name) for s in self._schema.structures}
        geometry = self.geometry(case)
        return {name: maskery.read(path, geometry) for name, path in paths.items() if path}

    def mask(self, case: str, structure: str) -> NDArray[np.bool_]:
        """Read one mask: bool, (z, y, x), on the case's grid.

        Raises
        ------
        GeometryError
            It does not lie on that grid.
        ProjectError
            The case has no mask of the structure.
        """
        path = self.mask_path(case, structure)
        if path is None:
            raise ProjectError(f"{case} has no mask of {structure}.", "Make one first.")
        return maskery.read(path, self.geometry(case))

    def soft_path(self, case: str, target: str) -> Path | None:
        """Return the soft mask of a target, None if the case has none."""
        path = self._soft_file(case, target)
        return path if path.exists() else None

    def soft_mask(self, case: str, target: str) -> NDArray[np.float32] | None:
        """Read how much of each voxel is a target: float32 in [0, 1], (z, y, x), None without it.

        Raises
        ------
        GeometryError
            It does not lie on the case's grid.
        InputError
            A voxel lies outside of [0, 1].
        """
        path = self.soft_path(case, target)
        what = f"The soft mask of {target} for {case}"
        return None if path is None else softness.read(path, self.geometry(case), what).array

    def soft_provenance(self, case: str, target: str) -> Provenance | None:
        """Return where a soft mask comes from, None if there is none."""
        path = self.soft_path(case, target)
        return None if path is None else maskery.read_provenance(path)

    def is_as_written(self, case: str, structure: str) -> bool:
        """Whether the file of a mask is the one its provenance was written for; True for none."""
        path = self.mask_path(case, structure)
        return path is None or maskery.is_as_written(path)

    def provenance(self, case: str, structure: str) -> Provenance | None:
        """Return where a mask comes from, None if there is no mask."""
        path = self.mask_path(case, structure)
        return None if path is None else maskery.read_provenance(path)

    def verdicts(self, case: str) -> tuple[Verdict, ...]:
        """Return all that was said of a case and its masks, the first verdict first."""
        return read_verdicts(self.cases_folder / self.case(case).id)

    def verdict(self, case: str, structure: str = "") -> Verdict | None:
        """Return the last verdict on a mask, or on the case; None without one."""
        return last_of(self.verdicts(case), structure)

    def edited_since(self, case: str, verdict: Verdict) -> bool:
        """Whether a mask that a verdict was about is another one now, or gone, or new."""
        names = [verdict.structure] if verdict.structure else None
        return self.contents(case, names) != verdict.masks

    def contents(self, case: str, structures: Sequence[str] | None = None) -> dict[str, str]:
        """Return the SHA-256 of the mask files of a case, by structure; of some, or of all."""
        names = [s.name for s in self._schema.structures] if structures is None else structures
        paths = {name: self.mask_path(case, name) for name in names}
        return {name: maskery.facts_of(path).sha256 for name, path in paths.items() if path}

    def facts(self, case: str, structure: str) -> maskery.MaskFacts | None:
        """Return what is quickly known of a mask, None where there is none."""
        path = self.mask_path(case, structure)
        return maskery.facts_of(path) if path else None

    def has_lesion(self, case: str) -> bool:
        """Tell whether any target mask of a case has a voxel; False if there is no mask."""
        paths = (self.mask_path(case, name) for name in self._schema.target_names)
        return any(maskery.voxels(path) > 0 for path in paths if path)

    def verify_images(self, cases: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return the cases whose images are gone or no longer have the kept SHA-256."""
        chosen = self.case_ids() if cases is None else cases
        return tuple(
            case
            for case in chosen
            if not all(self._unchanged(i) for i in self.case(case).images.values())
        )

    def _unchanged(self, image: Image) -> bool:
        path = self.folder / image.file
        return path.exists() and path.stat().st_size == image.size and sha256(path) == image.sha256

    def _mask_file(self, case: str, structure: str) -> Path:
        return maskery.place_of(self._schema, self.cases_folder / self.case(case).id, structure)

    def _soft_file(self, case: str, target: str) -> Path:
        return softness.place_of(self._schema, self.cases_folder / self.case(case).id, target)

    def splits(self, folds: int = 5) -> list[dict[str, list[str]]]:
        """Split the training cases by patient: [{"train": case ids, "val": case ids}, ...].

        The same schema always gives the same splits. Patients with and without lesions are
        spread evenly; a test case is in none.

        Raises
        ------
        ProjectError
            There are fewer patients than folds.
        """
        cases = [(case, self.case(case).patient) for case in self.training_cases()]
        return splits.as_splits(self._folds(folds), cases, folds)

    def _folds(self, folds: int) -> dict[str, int]:
        kept = self._schema.folds
        same = kept if max(kept.values(), default=-1) + 1 == folds else {}
        kinds = self._lesion_by_patient(self.training_cases())
        return splits.assign_folds(kinds, folds, self._schema.seed, same)

    def _complete(self) -> tuple[str, ...]:
        return tuple(case for case in self.case_ids() if not self.problems(case))

    def _lesion_by_patient(self, cases: Sequence[str]) -> dict[str, bool]:
        result: dict[str, bool] = {}
        for case in cases:
            patient = self.case(case).patient
            result[patient] = result.get(patient, False) or self.has_lesion(case)
        return result


def read_schema(folder: Path) -> tuple[Schema, int]:
    """Read project.json; return the schema and the format it came in.

    Raises
    ------
    ProjectError
        There is none, its format is newer, or it does not fit.
    """
    if not (folder / FILE).is_file():
        raise ProjectError(f"{folder} is no project.", f"Choose a folder with a {FILE}.")
    return parse(read_json(folder / FILE))
