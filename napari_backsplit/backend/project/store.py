"""The project folder: one writer, every file replaced whole, original names kept apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.files import link_or_copy, sha256, write_json, writing
from napari_backsplit.backend.project import masks as maskery
from napari_backsplit.backend.project import soft as softness
from napari_backsplit.backend.project import splits
from napari_backsplit.backend.project.cases import Request, added
from napari_backsplit.backend.project.images import AS_STORED, Reading
from napari_backsplit.backend.project.lock import WriterLock
from napari_backsplit.backend.project.private import Private, read_private, write_private
from napari_backsplit.backend.project.reader import FILE, ProjectReader, read_schema
from napari_backsplit.backend.project.recipes import Recipe, owners
from napari_backsplit.backend.project.schema import (
    Case,
    Channel,
    Judgement,
    Provenance,
    Schema,
    Structure,
    checked,
    coloured,
    today,
)
from napari_backsplit.backend.project.snapshot import keep_snapshot
from napari_backsplit.backend.project.verdicts import Verdict, append_verdict
from napari_backsplit.backend.volume import Volume

_REFUSED = "The test set has been used by a training."


class Project(ProjectReader):
    """An open project: a context manager that holds the writer's lock until it is closed.

    Attributes
    ----------
    notice : str
        Why it is open to read only, "" otherwise.
    """

    def __init__(
        self,
        folder: Path,
        schema: Schema,
        lock: WriterLock | None,
        notice: str = "",
        cases: Path | None = None,
    ) -> None:
        super().__init__(folder, schema, cases)
        self.notice = notice
        self._lock = lock
        self._turn = threading.RLock()

    # ------------------------------------------------------------------ open and close

    @classmethod
    def create(
        cls,
        folder: Path | str,
        name: str,
        channels: Sequence[Channel | str],
        targets: Sequence[Structure | str],
        supports: Sequence[Structure | str] = (),
        *,
        seed: int = 0,
    ) -> Project:
        """Make a project in a new or empty folder and open it.

        Bare names of structures get the next colours of Okabe and Ito. A channel "CT" is
        normalised as CT, any other name as nnU-Net's default.

        Raises
        ------
        InputError
            A name is empty, used twice or has other characters than a-z 0-9 _ -.
        ProjectError
            The folder is not empty or cannot be written.
        """
        folder = Path(folder).resolve()
        structures = coloured([*targets, *supports])
        schema = checked(
            Schema,
            "The project",
            name=name,
            channels=[Channel(name=c) if isinstance(c, str) else c for c in channels],
            targets=structures[: len(targets)],
            supports=structures[len(targets) :],
            seed=seed,
        )
        with writing(f"The project folder {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise ProjectError(f"{folder} is not empty.", "Choose a new folder.")
            project = cls(folder, schema, WriterLock(folder))
        try:
            with project._writing("the project"):
                write_private(folder, Private())
                project._save(schema)
        except BaseException:
            project.close()
            raise
        return project

    @classmethod
    def open(
        cls, folder: Path | str, *, read_only: bool = False, fall_back: bool = False
    ) -> Project:
        """Open a project, to write unless told otherwise.

        Parameters
        ----------
        read_only : bool
            Take no lock, write nothing.
        fall_back : bool
            Where another process holds the project, open it to read only; `notice` says who.

        Raises
        ------
        ProjectError
            It is no project, its format is newer, it is held by another process (the text
            says which one, where and since when) or the folder cannot be written.
        """
        folder = Path(folder).resolve()
        schema, _ = read_schema(folder)
        if read_only:
            return cls(folder, schema, None, "The project was opened to read only.")
        try:
            with writing(f"The project folder {folder}"):
                lock = WriterLock(folder)
        except ProjectError as error:
            if fall_back:
                return cls(folder, schema, None, f"{error.problem} It is open here to read only.")
            raise
        return cls._writer(folder, lock)

    @classmethod
    def snapshot(cls, folder: Path | str, into: Path) -> Project:
        """Open a project to read, with its schema and masks as they were at the first call.

        What is edited meanwhile is not seen: a mask's file is replaced, never written in, and the
        snapshot holds on to the one that was there.

        Parameters
        ----------
        into : Path
            Where the snapshot is, or will be, kept: hard links to masks, copies of what was said.
        """
        whole = cls.open(folder, read_only=True)
        if not (into / FILE).exists():
            keep_snapshot(whole.folder, into)
        schema, _ = read_schema(into)
        return cls(whole.folder, schema, None, whole.notice, cases=into / "cases")

    @classmethod
    def _writer(cls, folder: Path, lock: WriterLock) -> Project:
        """Read again under the lock, and migrate."""
        try:
            schema, version = read_schema(folder)
            project = cls(folder, schema, lock)
            if version != schema.format_version:
                with project._writing("the migrated project"):
                    _keep_copy(folder / FILE, version)
                    project._save(schema)
        except BaseException:
            lock.release()
            raise
        return project

    def close(self) -> None:
        """Let another writer in. Closing twice is no error."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
            self.notice = "The project is closed."

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def read_only(self) -> bool:
        """True where nothing can be written."""
        return self._lock is None

    # ------------------------------------------------------------------ cases

    def add_case(
        self,
        images: Mapping[str, Path | str],
        *,
        name: str = "",
        patient: str = "",
        test: bool = False,
        resample: bool = False,
        reading: Reading = AS_STORED,
        notes: Sequence[str] = (),
    ) -> Case:
        """Add a case under a neutral id and link its images to neutral names.

        Parameters
        ----------
        images : mapping
            Channel name -> file or DICOM series folder. A channel may be missing.
        name, patient : str
            As the user calls them; kept in private.json only. A case without a name has its
            first path; a case without a patient is a patient of its own.
        test : bool
            Reserve it; the cases of a patient always stay together.
        resample : bool
            Bring channels on other grids to that of the first, and note it.
        reading : Reading
            How DICOM series are read: with their tilt corrected, as SUV; noted too.
        notes : sequence of str
            What is to be known of the images; kept with the case. Never a path or a name.

        Raises
        ------
        InputError
            An image cannot be read, has NaN or infinite voxels, or channels' grids differ.
        ProjectError
            The case, or an image of it, is in the project already.
        """
        paths = {channel: Path(path) for channel, path in images.items()}
        request = Request(paths, name, patient, test, resample, reading, tuple(notes))
        with self._writing("the case"):
            private = read_private(self.folder)
            with added(self.folder, self._schema, private, request) as (schema, grown, case):
                write_private(self.folder, grown)
                self._save(schema, case.id)
        return case

    # ------------------------------------------------------------------ masks

    def set_mask(
        self,
        case: str,
        structure: str,
        volume: Volume,
        provenance: Mapping[str, Any] | Provenance,
        *,
        replace: bool = False,
        resample: bool = False,
        source: Path | None = None,
        keep_old: bool = True,
    ) -> Path:
        """Write the mask of a structure and, beside it, where it comes from.

        Parameters
        ----------
        volume : Volume
            Nonzero is the structure. All zero is a mask too: the structure is known not to
            be there.
        provenance : mapping
            Keys of `Provenance`, and any more; never a path. `who`, `when` and the review
            state are filled in.
        replace : bool
            Replace a mask; the old one is kept in the case's ``trash``.
        resample : bool
            Bring a mask on another grid to the case's (nearest neighbour), and record it.
        source : Path, optional
            The file it was read from; kept in private.json only.
        keep_old : bool
            False where what is replaced can be had again, from the case's journal.

        Raises
        ------
        GeometryError
            The mask is on another grid and `resample` is False.
        ProjectError
            There is a mask and `replace` is False.
        """
        path = self._mask_file(case, structure)
        what = f"The mask of {structure} for {case}"
        with self._writing(f"{structure} of {case}"):
            if path.exists() and not replace:
                raise ProjectError(f"{case} has a mask of {structure} already.", "Replace it.")
            fitted, resampled = maskery.fit(volume, self.geometry(case), what, resample)
            record = maskery.provenance_of(provenance, fitted, resampled, what)
            if source is not None:
                origins = read_private(self.folder)
                write_private(self.folder, origins.with_mask(case, structure, source.resolve()))
            trash = self.cases_folder / case / "trash" if keep_old else None
            maskery.replace(path, fitted, record, trash)
            self._judge_again(case, structure, path)
        self.changed.emit(case)
        return path

    def _judge_again(self, case: str, structure: str, path: Path) -> None:
        """Give a mask that is what it was when it was judged its verdict back."""
        last = self.verdict(case, structure)
        if last is not None and last.masks.get(structure) == maskery.facts_of(path).sha256:
            record = maskery.reviewed(path, last.verdict, last.who, last.when)
            maskery.write_record(path, record)

    def remove_mask(self, case: str, structure: str) -> None:
        """Take a mask away, so that nothing is known of the structure; no mask is no error.

        The mask is kept in the case's ``trash``.
        """
        path = self._mask_file(case, structure)
        with self._writing(f"{structure} of {case}"):
            maskery.remove(path, self.cases_folder / case / "trash")
        self.changed.emit(case)

    def set_soft_mask(
        self,
        case: str,
        target: str,
        shares: Volume | NDArray[Any],
        provenance: Mapping[str, Any] | Provenance,
        *,
        replace: bool = False,
        resample: bool = False,
        sources: Sequence[Path] = (),
    ) -> Path:
        """Write how much of each voxel is a target and, beside it, where that comes from.

        The target's mask is not changed: it stays the reference for sampling and metrics.

        Parameters
        ----------
        shares : Volume or ndarray
            In [0, 1], (z, y, x); an array lies on the case's grid.
        provenance : mapping
            Keys of `Provenance`, and any more; never a path.
        replace : bool
            Replace a soft mask; the old one is kept in the case's ``trash/soft``.
        resample : bool
            Bring shares on another grid to the case's (linear), and record it.
        sources : sequence of Path
            The files they were read from; kept in private.json only.

        Raises
        ------
        InputError
            A share is NaN or outside of [0, 1].
        GeometryError
            The shares are on another grid and `resample` is False.
        ProjectError
            There is no such target, or a soft mask and `replace` is False.
        """
        path = self._soft_file(case, target)
        what, geometry = f"The soft mask of {target} for {case}", self.geometry(case)
        volume = shares if isinstance(shares, Volume) else Volume(shares, geometry)
        with self._writing(f"the soft mask of {target} of {case}"):
            if path.exists() and not replace:
                raise ProjectError(
                    f"{case} has a soft mask of {target} already.", "Replace it (--replace)."
                )
            known = softness.as_shares(volume, what)
            fitted, resampled = softness.fit(known, geometry, what, resample)
            record = maskery.provenance_of(provenance, fitted, resampled, what)
            origins = read_private(self.folder)
            for number, source in enumerate(sources, 1):
                place = f"{softness.FOLDER}/{target}/{number}"
                origins = origins.with_mask(case, place, source.resolve())
            if sources:
                write_private(self.folder, origins)
            maskery.replace(path, fitted, record, self._soft_trash(case))
        self.changed.emit(case)
        return path

    def remove_soft_mask(self, case: str, target: str) -> None:
        """Take a soft mask away; it is kept in the case's ``trash/soft``. None is no error."""
        path = self._soft_file(case, target)
        with self._writing(f"the soft mask of {target} of {case}"):
            maskery.remove(path, self._soft_trash(case))
        self.changed.emit(case)

    def _soft_trash(self, case: str) -> Path:
        return self.cases_folder / case / "trash" / softness.FOLDER

    def judge(
        self,
        case: str,
        judgement: Judgement,
        structure: str = "",
        *,
        comment: str = "",
        who: str = "",
    ) -> Verdict:
        """Record what a person says of a mask or, without a structure, of the case.

        Raises
        ------
        ProjectError
            The case has no mask of the structure.
        """
        path = self.mask_path(case, structure) if structure else None
        if structure and path is None:
            raise ProjectError(f"{case} has no mask of {structure}.", "Make one first.")
        who, when = who or maskery.login(), today()
        with self._writing(f"the verdict on {case}"):
            record = path and maskery.reviewed(path, judgement, who, when)
            judged = self.contents(case) if path is None else {structure: sha256(path)}
            verdict = Verdict(
                structure=structure,
                verdict=judgement,
                comment=comment,
                who=who,
                when=when,
                masks=judged,
            )
            append_verdict(self.cases_folder / case, verdict)
            if path and record:
                maskery.write_record(path, record)
        self.changed.emit(case)
        return verdict

    def add_recipe(
        self, kind: Literal["merge", "subtract", "grow"], support: str, sources: Sequence[str] = ()
    ) -> None:
        """Make or change a support by a recipe; see `Recipe`. No mask is changed.

        Raises
        ------
        InputError
            It names what is not there, or makes what is.
        """
        values = {"kind": kind, "support": support, "sources": tuple(sources)}
        recipe = checked(Recipe, "The recipe", **values, who=maskery.login(), when=today())
        self._set_recipes((*self._schema.recipes, recipe))

    def remove_recipe(self, number: int) -> None:
        """Take a recipe away, the first being 0: what it changed is as it was before.

        Raises
        ------
        InputError
            There is none of this number, or a later one needs it.
        """
        recipes = self._schema.recipes
        if not 0 <= number < len(recipes):
            raise InputError(
                f"There is no recipe {number + 1}.", f"The project has {len(recipes)} recipes."
            )
        self._set_recipes((*recipes[:number], *recipes[number + 1 :]))

    def _set_recipes(self, recipes: tuple[Recipe, ...]) -> None:
        values = {**dict(self._schema), "recipes": recipes}
        with self._writing("the recipes"):
            self._save(checked(Schema, "The recipes", **values))

    def set_priorities(self, names: Sequence[str]) -> None:
        """Set the order of the fused supports, the one that wins first.

        Raises
        ------
        InputError
            The names are not those of the fused supports.
        """
        schema = self._schema
        known = [support.name for support in schema.fused_supports]
        if sorted(names) != sorted(known):
            raise InputError(
                f"The priorities name {', '.join(names)}.",
                f"Name each of {', '.join(known)} once.",
            )
        owner = owners(schema.support_names, schema.recipes)
        order = sorted(schema.support_names, key=lambda name: names.index(owner[name]))
        self.set_supports(order)

    def set_supports(self, supports: Sequence[Structure | str]) -> None:
        """Set the supports, the one with the highest priority first.

        Raises
        ------
        ProjectError
            A support that has masks would be dropped.
        """
        known = {support.name: support for support in self._schema.supports}
        named = [known.get(s, s) if isinstance(s, str) else s for s in supports]
        taken = [target.colour for target in self._schema.targets]
        chosen = coloured(named, taken)
        for name in known.keys() - {support.name for support in chosen}:
            users = [case for case in self.case_ids() if self.mask_path(case, name)]
            if users:
                raise ProjectError(
                    f"{name} has masks in {len(users)} cases, such as {users[0]}.",
                    "Keep the support; a training may leave it out.",
                )
        with self._writing("the supports"):
            values = {**dict(self._schema), "supports": chosen}
            self._save(checked(Schema, "The supports", **values))

    # ------------------------------------------------------------------ test set and splits

    def reserve_test(
        self,
        fraction: float | None = None,
        *,
        count: int | None = None,
        ids: Sequence[str] | None = None,
        seed: int | None = None,
        force: bool = False,
    ) -> tuple[str, ...]:
        """Reserve patients for the test, in place of those reserved before.

        Exactly one of `fraction` (of the patients with a reference), `count` (of patients)
        and `ids` (of cases; their patients' other cases come along) is given.

        Returns
        -------
        tuple of str
            The reserved cases.

        Raises
        ------
        ProjectError
            A training has used the test set and `force` is False, or nothing would be left.
        """
        if sum(option is not None for option in (fraction, count, ids)) != 1:
            raise InputError("Give one of fraction, count and ids.")
        kinds = self._lesion_by_patient(self._complete())
        if ids is not None:
            chosen = {self.case(case).patient for case in ids}
        else:
            wanted = count if count is not None else max(1, round((fraction or 0) * len(kinds)))
            seed = self._schema.seed if seed is None else seed
            chosen = splits.draw_patients(kinds, wanted, seed)
        if kinds and not kinds.keys() - chosen:
            raise ProjectError("No patient would be left to train on.", "Reserve fewer.")
        cases = {
            name: case.model_copy(update={"test": case.patient in chosen})
            for name, case in self._schema.cases.items()
        }
        if self._schema.frozen_test and not force and cases != self._schema.cases:
            raise ProjectError(_REFUSED, "Keep it, or say that you want to change it all the same.")
        with self._writing("the test set"):
            self._save(self._schema.model_copy(update={"cases": cases}))
        return self.test_cases()

    def freeze_test(self, folds: int | None = None) -> None:
        """Mark the test set as used by a training and, with `folds`, keep the splits.

        Kept splits only grow: new patients are dealt to the smallest folds.
        """
        with self._writing("the splits"):
            update: dict[str, Any] = {"frozen_test": True}
            if folds is not None:
                update["folds"] = self._folds(folds)
            self._save(self._schema.model_copy(update=update))

    # ------------------------------------------------------------------ write

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Take the writer's turn; turn a full or read-only disk into a ProjectError."""
        if self._lock is None:
            raise ProjectError(f"{self.notice} So {what} cannot be written.", "Open it to write.")
        with self._turn, writing(what):
            yield

    def _save(self, schema: Schema, case: str = "") -> None:
        write_json(self.folder / FILE, schema.model_dump(mode="json"))
        self._schema = schema
        self.changed.emit(case)


def _keep_copy(path: Path, version: int) -> None:
    names = (path.with_name(f"project.v{version}{end}.json") for end in ("", *_numbers()))
    link_or_copy(path, next(name for name in names if not name.exists()))


def _numbers() -> Iterator[str]:
    return (f"-{number}" for number in range(2, 1000))
