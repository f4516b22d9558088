"""The arms: label map schemes that differ in how they divide the background, and in nothing else.

`binary` and `backsplit` are the paper's two trainings. The others are controls that tell what the
supports' meaning is worth: `virtual` (an extra channel without a voxel, App. I), `virtual-set` (the
channel trained as {background, virtual}), `permuted` (another case's supports) and `blobs`
(random regions of the supports' volumes).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import sha256
from napari_backsplit.backend.fusion.cases import (
    Admit,
    admitted,
    case_masks,
    project_scheme,
)
from napari_backsplit.backend.fusion.cases import missing_supports as unknown_in
from napari_backsplit.backend.fusion.fuse import (
    LabelScheme,
    PartialCodes,
    encode_partial,
    fuse,
    partial_codes,
)
from napari_backsplit.backend.geometry import Geometry, restore, to_canonical
from napari_backsplit.backend.project import Project, ProjectReader
from napari_backsplit.backend.project.recipes import sources_of
from napari_backsplit.backend.training.spec import WITH_SUPPORTS, Arm, Missing, arm_name

VIRTUAL = "virtual"
BLOB_SMOOTHNESS = 2.0
"""Standard deviation, in voxels, of the noise whose upper tail is a blob."""


@dataclass(frozen=True)
class ArmScheme:
    """An arm of a project: which classes it learns and what each voxel is told.

    Attributes
    ----------
    arm : Arm
    targets, supports : tuple of str
        In order of priority; no supports where the arm takes none.
    donors : mapping of str to str
        `permuted`: whose supports a case gets.
    seed : int
        Seed of the controls.
    admit : Admit
        Which masks of supports enter.
    without : tuple of str
        Cases whose supports are left out.
    missing : {"label-set", "background"}
        What the background of a case without a support is told to be.
    """

    arm: Arm
    targets: tuple[str, ...]
    supports: tuple[str, ...]
    donors: Mapping[str, str]
    seed: int
    admit: Admit = "accepted"
    without: tuple[str, ...] = ()
    missing: Missing = "label-set"

    @property
    def name(self) -> str:
        """Short name, unique for the supports, the cases left out and what is told of those."""
        return arm_name(self.arm, self.supports, self.without, self.missing)

    @property
    def classes(self) -> LabelScheme:
        """The scheme of the label map; a virtual class counts as a support without voxels."""
        extra = (VIRTUAL,) if self.arm in ("virtual", "virtual-set") else ()
        return LabelScheme(self.targets, self.supports + extra)


def arm_scheme(
    project: Project,
    arm: Arm,
    supports: Sequence[str],
    cases: Sequence[str],
    admit: Admit = "accepted",
    without: Sequence[str] = (),
    missing: Missing = "label-set",
) -> ArmScheme:
    """Return an arm's scheme on a project.

    Parameters
    ----------
    project : Project
    arm : Arm
    supports : sequence of str
        A subset of the project's fused supports; empty: all. Ignored by arms that take none.
    cases : sequence of str
        The cases of the plan set, among which `permuted` exchanges supports.
    admit : Admit
        Which masks of supports enter.
    without : sequence of str
        Cases whose supports are left out; see `run_scheme.left_out`.
    missing : {"label-set", "background"}
        What the background of a case without a support is told to be.

    Raises
    ------
    InputError
        A support is not the project's, or an arm lacks what it needs.
    """
    known = project_scheme(project).supports
    unknown = sorted(set(supports) - set(known))
    if unknown:
        raise InputError(
            f"The project has no support {', '.join(unknown)}.", f"It has: {', '.join(known)}."
        )
    chosen = tuple(name for name in known if not supports or name in supports)
    return ArmScheme(
        arm=arm,
        targets=tuple(target.name for target in project.schema.targets),
        supports=chosen if arm in WITH_SUPPORTS else (),
        donors=_donors(cases, project.schema.seed) if arm == "permuted" else {},
        seed=project.schema.seed,
        admit=admit,
        without=tuple(sorted(without)) if arm in WITH_SUPPORTS else (),
        missing=missing,
    )


def _donors(cases: Sequence[str], seed: int) -> dict[str, str]:
    if len(cases) < 2:
        raise InputError(
            f"The arm permuted exchanges supports between cases; the plan set has {len(cases)}.",
            "Add cases.",
        )
    order = np.random.default_rng(seed).permutation(sorted(cases)).tolist()
    return dict(zip(order, order[1:] + order[:1], strict=True))


def what_enters(project: Project, scheme: ArmScheme, cases: Sequence[str]) -> list[str]:
    """Say which supports are not known in some of the cases, a sentence each.

    Raises
    ------
    InputError
        A support is not known in any of them: there is nothing to learn it from.
    """
    names = scheme.supports
    lacking = {case: unknown_supports(project, scheme, case) for case in cases}
    counts = {name: sum(name in missing for missing in lacking.values()) for name in names}
    for name in names:
        if counts[name] == len(cases):
            raise InputError(
                f"{name}: none of {len(cases)} training cases has a mask that may enter "
                f"(masks: {scheme.admit}){_of_which(scheme, cases)}.",
                f"Accept masks of {name} in the review (backsplit verdict accepted --all "
                f"--structure {name}), train with --masks unreviewed, or leave the support out.",
            )
    says = "background or {}" if scheme.missing == "label-set" else "no {}, wherever it is"
    return [
        f"{name} is not known in {count} of {len(cases)} cases (no mask, not accepted, or left "
        f"out): background there means {says.format(name)}."
        for name, count in counts.items()
        if count
    ]


def _of_which(scheme: ArmScheme, cases: Sequence[str]) -> str:
    used = sum(case not in scheme.without for case in cases)
    return f", as the supports of {used} are used" if scheme.without else ""


def missing_sets(project: Project, scheme: ArmScheme, cases: Sequence[str]) -> PartialCodes:
    """Return the code of each set of supports that some case lacks."""
    missing = {case: missing_supports(project, scheme, case) for case in cases}
    return partial_codes(scheme.classes, missing)


def missing_supports(project: Project, scheme: ArmScheme, case: str) -> tuple[str, ...]:
    """Return the supports for which the background of a case stands too: its label set."""
    if scheme.arm == "virtual-set":
        return (VIRTUAL,)
    return unknown_supports(project, scheme, case) if scheme.missing == "label-set" else ()


def unknown_supports(project: Project, scheme: ArmScheme, case: str) -> tuple[str, ...]:
    """Return which of the arm's supports are not known in a case, whatever it is told of that."""
    if case in scheme.without:
        return scheme.supports
    absent = unknown_in(project, scheme.donors.get(case, case), scheme.admit)
    return tuple(name for name in scheme.supports if name in absent)


def arm_label_map(
    project: Project, scheme: ArmScheme, case: str, codes: PartialCodes
) -> NDArray[Any]:
    """Return what an arm tells the network about a case: codes (z, y, x) on the image's grid."""
    shape = project.geometry(case).shape
    targets = case_masks(project, case, scheme.admit, scheme.targets)
    fused = fuse({**targets, **_supports(project, scheme, case)}, scheme.classes, shape)
    return encode_partial(fused.label_map, missing_supports(project, scheme, case), codes)


def arm_support_map(project: ProjectReader, scheme: ArmScheme, case: str) -> NDArray[Any]:
    """Return the codes of an arm's supports, (z, y, x), as if the case had no target."""
    shape = project.geometry(case).shape
    return fuse(_supports(project, scheme, case), scheme.classes, shape).label_map


def _supports(project: ProjectReader, scheme: ArmScheme, case: str) -> dict[str, NDArray[np.bool_]]:
    if case in scheme.without:
        return {}
    owner = scheme.donors.get(case, case)
    masks = case_masks(project, owner, scheme.admit, scheme.supports)
    if scheme.arm == "permuted":
        there, here = project.geometry(owner), project.geometry(case)
        return {name: transplant(mask, there, here) for name, mask in masks.items()}
    if scheme.arm == "blobs":
        return {name: blob(mask, [scheme.seed, index, *case.encode()])
                for index, (name, mask) in enumerate(masks.items())}  # fmt: skip
    return masks


def transplant(mask: NDArray[np.bool_], there: Geometry, here: Geometry) -> NDArray[np.bool_]:
    """Return a mask on another image's grid, at the same relative place; left stays left."""
    shape = here.canonical().shape
    moved: NDArray[np.bool_] = restore(stretch(to_canonical(mask, there), shape), here)
    return moved


def stretch(mask: NDArray[np.bool_], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return a mask (z, y, x) on another shape, the nearest voxel at the same relative place."""
    index = [
        ((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, mask.shape, strict=True)
    ]
    stretched: NDArray[np.bool_] = mask[np.ix_(*index)]
    return stretched


def blob(mask: NDArray[np.bool_], seed: Sequence[int]) -> NDArray[np.bool_]:
    """Return a random smooth region with exactly as many voxels as a mask (z, y, x)."""
    noise = np.random.default_rng(seed).standard_normal(mask.shape)
    smooth = ndimage.gaussian_filter(noise, BLOB_SMOOTHNESS)
    region = np.zeros(mask.size, dtype=bool)
    region[np.argsort(smooth, axis=None, kind="stable")[mask.size - int(mask.sum()) :]] = True
    return region.reshape(mask.shape)


def source_digest(project: Project, scheme: ArmScheme, case: str, codes: PartialCodes) -> str:
    """Return a hash of all that a case's label map is made from: its masks and its set code.

    The code is part of it, since the codes move where another case gains or loses a support.
    """
    schema = project.schema
    owner, donor = dict.fromkeys(schema.target_names, case), scheme.donors.get(case, case)
    for name in () if case in scheme.without else scheme.supports:
        sources = sources_of(name, schema.recipes)
        owner |= dict.fromkeys(set(sources) - owner.keys(), donor)
    hashes: dict[str, Any] = _contents(project, owner, scheme.admit)
    hashes[""] = codes.code(missing_supports(project, scheme, case))
    if scheme.supports and schema.recipes:
        theirs = dict.fromkeys(schema.target_names, donor)  # taken away, or grown over
        made = [recipe.words for recipe in schema.recipes]
        hashes["+recipes"] = [made, _contents(project, theirs, scheme.admit)]
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _contents(project: Project, owners: Mapping[str, str], admit: Admit) -> dict[str, str | None]:
    return {n: _content(project, case, n, admit) for n, case in sorted(owners.items())}


def _content(project: Project, case: str, structure: str, admit: Admit) -> str | None:
    """Return the hash of a mask that enters, None for one that does not."""
    path = project.mask_path(case, structure)
    return sha256(path) if path and admitted(project, case, structure, admit) else None
