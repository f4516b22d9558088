"""Reads the cases of a project with the predictions of several arms, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.arms import Arm, ArmFolder
from napari_backsplit.backend.comparison.compare import CaseInput
from napari_backsplit.backend.comparison.seen import weakest
from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, read_label_map, read_volume


class _Read(Mapping[str, NDArray[Any]]):
    """Arrays that are read each time they are asked for, so that one is in memory at a time."""

    def __init__(self, names: Sequence[str], read: Callable[[str], NDArray[Any]]) -> None:
        self._names, self._read = dict.fromkeys(names), read

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class CaseReader:
    """Reads the cases of a project with the predictions of several arms."""

    project: Project
    arms: tuple[Arm, ...]

    def read(self, case: str, *, for_figure: bool = False) -> CaseInput:
        """Read a case: with the image for a figure, otherwise with the probabilities."""
        value = self.project.case(case)
        geometry = self.project.geometry(case)
        targets = self.project.schema.target_names
        there = [s for s in self.project.schema.support_names if self.project.mask_path(case, s)]
        image = self.project.image_paths(case)[0] if for_figure else None
        arms = [arm.folder_of(case) for arm in self.arms]
        return CaseInput(
            case=case,
            patient=value.patient,
            spacing_mm=geometry.spacing_mm,
            reference={target: self.project.mask(case, target) for target in targets},
            predictions={arm.name: self._masks(arm, case, targets) for arm in arms},
            probabilities={}
            if for_figure
            else {arm.name: self._probabilities(arm, case, targets) for arm in arms},
            image=read_volume(image) if image else None,
            supports=_Read(there, lambda support: self.project.mask(case, support)),
            soft={} if for_figure else self._soft(case, targets),
            shares=frozenset(
                arm.name for arm in arms if any(arm.has_shares(case, t, targets) for t in targets)
            ),
            seen=weakest(arm.seen(case, self._hashes(case)) for arm in arms),
            modality=self.project.schema.channels[0].modality,
        )

    def _soft(self, case: str, targets: Sequence[str]) -> _Read:
        there = [target for target in targets if self.project.soft_path(case, target)]
        return _Read(there, lambda target: self._soft_mask(case, target))

    def _soft_mask(self, case: str, target: str) -> NDArray[np.float32]:
        mask = self.project.soft_mask(case, target)
        if mask is None:
            raise InputError(
                f"The soft mask of {target} for {case} is gone.", "Compare again without it."
            )
        return mask

    def _hashes(self, case: str) -> list[str]:
        images = self.project.case(case).images.values()
        known = [digest for image in images for digest in (image.sha256, image.source_sha256)]
        return [digest for digest in known if digest]

    def _masks(
        self, arm: ArmFolder, case: str, targets: Sequence[str]
    ) -> dict[str, NDArray[np.bool_]]:
        label_map = self._on_grid(read_label_map(arm.mask_path(case)), arm, case)
        if (highest := int(label_map.max(initial=0))) > len(targets):
            raise InputError(
                f"The prediction of {case} by {arm.name} has the id {highest}; the project has "
                f"{len(targets)} target{'' if len(targets) == 1 else 's'}.",
                "Leave only the targets in it, as 1, 2, ... in the project's order.",
            )
        return {target: label_map == number for number, target in enumerate(targets, start=1)}

    def _probabilities(self, arm: ArmFolder, case: str, targets: Sequence[str]) -> _Read:
        paths = {target: arm.probability_path(case, target, targets) for target in targets}
        return _Read(
            [target for target, path in paths.items() if path.exists()],
            lambda target: self._on_grid(read_volume(paths[target]), arm, case),
        )

    def _on_grid(self, volume: Volume, arm: ArmFolder, case: str) -> NDArray[Any]:
        difference = self.project.geometry(case).difference(volume.geometry)
        if difference:
            raise GeometryError(
                f"The prediction of {case} by {arm.name} is on another grid: {difference}",
                "Predict the case again.",
            )
        return volume.array
