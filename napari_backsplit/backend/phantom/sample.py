"""The sample on disk: files, and a project that is ready to train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_backsplit.backend.files import write_json, write_text
from napari_backsplit.backend.phantom.drawing import draw
from napari_backsplit.backend.phantom.spec import LESION, NOTE, STRUCTURES, Phantom, PhantomSpec
from napari_backsplit.backend.volume import Volume, write_volume

if TYPE_CHECKING:
    from napari_backsplit.backend.project import Project

SUPPORTS: dict[str, tuple[str, ...]] = {
    "kidney": ("kidney",),
    "liver": ("liver",),
    "bowel": ("bowel", "gallbladder"),
}
"""The sample project's supports, in order of priority: name -> structures fused under it."""

README = f"""# SYNTHETIC abdominal CT

{NOTE} Not for any medical use.

- `images/<case>.nii.gz`: CT in Hounsfield units.
- `masks/<structure>/<case>.nii.gz`: one mask for each structure; `lesion` holds the renal cysts,
  and `kidney` includes them. About a third of the cases have no lesion.
- `labels/<case>.nii.gz`: the same as one label map; the ids are in `sample.json`.
- `sample.json`: which cases are for training and which for testing, and every lesion.

Cysts of the liver and spleen, the gallbladder and fluid in the bowel look like the lesions and are
none. Renal sinus fat is left out.
"""

TITLE = "Synthetic abdominal CT"

PROJECT_README = f"""# {TITLE}

{NOTE} Not for any medical use.

The lesions are renal cysts; about a third of the cases have none. Cysts of the liver and spleen,
the gallbladder and fluid in the bowel look like them and are no lesions.
"""


@dataclass(frozen=True)
class SampleCase:
    """One case of the sample: its name, whether it is held out, and how it is drawn."""

    name: str
    test: bool
    seed: tuple[int, int]
    spec: PhantomSpec

    def draw(self) -> Phantom:
        """Draw the case."""
        return draw(self.seed, self.spec)


def sample_cases(
    seed: int, train: int = 16, test: int = 24, spec: PhantomSpec | None = None
) -> tuple[SampleCase, ...]:
    """Return the cases of a sample: training first, a third of each part without a lesion.

    A spec's `lesion_free` is that share. A part of two cases or more has both kinds, unless the
    share is 0 or 1.
    """
    spec = spec or PhantomSpec()
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed])))
    free = [flag for part in (train, test) for flag in _free(part, spec.lesion_free, rng)]
    return tuple(
        SampleCase(
            f"synthetic_{i + 1:03d}", i >= train, (seed, i), replace(spec, lesion_free=float(f))
        )
        for i, f in enumerate(free)
    )


def _free(count: int, share: float, rng: np.random.Generator) -> list[bool]:
    """Mark a share of `count` cases, of two or more at least one and not all."""
    chosen = round(count * share)
    if count > 1 and 0 < share < 1:
        chosen = min(max(chosen, 1), count - 1)
    return [bool(v) for v in rng.permutation(np.arange(count) < chosen)]


def write_sample(
    folder: Path, seed: int, train: int = 16, test: int = 24, spec: PhantomSpec | None = None
) -> tuple[SampleCase, ...]:
    """Write a sample: images, masks, label maps and a README that says it is synthetic.

    Parameters
    ----------
    folder : Path
        Made if missing; files in it are replaced.
    seed, train, test, spec
        As for `sample_cases`.
    """
    cases = sample_cases(seed, train, test, spec)
    write_text(folder / "README.md", README)
    lesions = {case.name: _write_case(folder, case) for case in cases}
    write_json(folder / "sample.json", _description(seed, cases, lesions))
    return cases


def _write_case(folder: Path, case: SampleCase) -> list[dict[str, Any]]:
    """Write one case and return its lesions."""
    phantom = case.draw()
    file = f"{case.name}.nii.gz"
    write_volume(phantom.image, folder / "images" / file)
    label_map = np.zeros(case.spec.shape, np.uint8)
    for label, name in reversed(list(enumerate(_label_names(), start=1))):
        mask = phantom.masks[name]
        write_volume(phantom.image.with_array(mask), folder / "masks" / name / file)
        label_map[mask] = label
    write_volume(phantom.image.with_array(label_map), folder / "labels" / file)
    return [{"center_vox": c.center_vox, "radii_mm": c.radii_mm} for c in phantom.lesions]


def _label_names() -> tuple[str, ...]:
    return (LESION, *STRUCTURES[1:])


def _description(
    seed: int, cases: Sequence[SampleCase], lesions: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "note": NOTE,
        "seed": seed,
        "labels": {"background": 0} | {n: i for i, n in enumerate(_label_names(), start=1)},
        "train": [case.name for case in cases if not case.test],
        "test": [case.name for case in cases if case.test],
        "lesions": dict(lesions),
    }


def sample_project(
    folder: Path,
    seed: int,
    train: int = 16,
    test: int = 24,
    spec: PhantomSpec | None = None,
    supports: Mapping[str, Sequence[str]] = SUPPORTS,
) -> Project:
    """Make a project of synthetic cases, its test set reserved, and open it.

    Parameters
    ----------
    folder : Path
        New or empty.
    seed, train, test, spec
        As for `sample_cases`.
    supports : mapping of str to sequence of str
        In order of priority: name -> structures fused under it.

    Raises
    ------
    ProjectError
        The folder is not empty.
    """
    from napari_backsplit.backend.project import Project

    project = Project.create(folder, TITLE, ["CT"], [LESION], list(supports), seed=seed)
    try:
        write_text(project.folder / "README.md", PROJECT_README)
        for case in sample_cases(seed, train, test, spec):
            _add_case(project, case, supports)
    except BaseException:
        project.close()
        raise
    return project


def sample_to_click(folder: Path, cases: int = 4) -> None:
    """Make a project of synthetic cases with reference lesions, whose supports are still to do.

    Parameters
    ----------
    folder : Path
        Must not exist; it appears when the project is whole.
    """
    spec = PhantomSpec(shape=(64, 96, 96), lesion_free=0.0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".sample-") as made:
        place = Path(made) / "sample"
        with sample_project(place, 1, cases, 0, spec, {}) as project:
            project.set_supports(["kidney", "liver", "spleen"])
        place.rename(folder)


def _add_case(project: Project, case: SampleCase, supports: Mapping[str, Sequence[str]]) -> None:
    """Draw a case into a project; its image is made beside it and moves in by its link."""
    phantom = case.draw()
    with TemporaryDirectory(dir=project.folder, prefix=".synthetic-") as drawn:
        image = Path(drawn) / f"{case.name}.nii.gz"
        write_volume(phantom.image, image)
        added = project.add_case({"CT": image}, name=case.name, test=case.test).id
    masks = {LESION: phantom.masks[LESION]} | {n: phantom.union(p) for n, p in supports.items()}
    for name, mask in masks.items():
        volume = Volume(mask, phantom.image.geometry)
        project.set_mask(added, name, volume, {"engine": "phantom", "notes": (NOTE,)})
        project.judge(added, "accepted", name, who="phantom", comment="drawn, not segmented")
