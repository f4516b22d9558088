"""The job folder: the whole contract between those who ask and the one who works."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.files import read_json, write_text
from napari_backsplit.backend.jobs.spec import FORMAT_VERSION, JobSpec, ProcessMark, Record

RESERVE_BYTES = 64 * 1024
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class JobFolder:
    """Paths of a job folder, its status and its lock.

    Only one process writes the status at a time: whoever holds the lock, or the task's own
    process while its worker waits for it.
    """

    path: Path

    @property
    def project_folder(self) -> Path:
        """The project that holds jobs/<id>."""
        return self.path.parent.parent

    @property
    def spec_file(self) -> Path:
        """The frozen specification."""
        return self.path / "job.json"

    @property
    def status_file(self) -> Path:
        """How the job stands; replaced atomically."""
        return self.path / "status.json"

    @property
    def events_file(self) -> Path:
        """What the task reports, one JSON line each."""
        return self.path / "events.jsonl"

    @property
    def log_file(self) -> Path:
        """Standard output and error of the task, and its traceback."""
        return self.path / "log.txt"

    @property
    def cancel_file(self) -> Path:
        """Its existence asks the task to end; its content is the grace period in seconds."""
        return self.path / "control" / "cancel"

    @property
    def pause_file(self) -> Path:
        """Its existence asks the task to hold."""
        return self.path / "control" / "pause"

    @property
    def queued_file(self) -> Path:
        """Its existence says that the job was left to the supervisor."""
        return self.path / "control" / "queued"

    @property
    def heartbeat_file(self) -> Path:
        """Its time of change is the last sign of life."""
        return self.path / "heartbeat"

    @property
    def launch_file(self) -> Path:
        """Which process was started here to work on the job."""
        return self.path / "launch.json"

    @property
    def reserve_file(self) -> Path:
        """Space for the final status on a full disk."""
        return self.path / ".reserve"

    def read_spec(self) -> JobSpec:
        """Read job.json; JobError if it is missing, torn or of a newer format."""
        spec = _read(self.spec_file, JobSpec)
        if spec.format_version > FORMAT_VERSION:
            raise JobError(
                f"{self.spec_file} has format {spec.format_version}, newer than {FORMAT_VERSION}.",
                "Update napari-backsplit.",
            )
        return spec

    def read_record(self) -> Record:
        """Read status.json; JobError if it is missing or torn."""
        return _read(self.status_file, Record)

    def read_launch(self) -> ProcessMark | None:
        """Read which process was started here; None if none was or it is unknown."""
        with suppress(JobError):
            return _read(self.launch_file, ProcessMark)
        return None

    def write_record(self, record: Record) -> None:
        """Replace status.json. A final state is written even where the disk is full."""
        text = record.model_dump_json(indent=2) + "\n"
        try:
            _patiently(self.status_file, text)
        except OSError:
            if not (record.final and self.reserve_file.exists()):
                raise
            self._write_into_reserve(text)
        if record.final:
            self.reserve_file.unlink(missing_ok=True)

    def make_reserve(self) -> None:
        """Set space aside. Random bytes, so that a compressing file system sets it aside too."""
        with self.reserve_file.open("wb") as file:
            file.write(os.urandom(RESERVE_BYTES))
            file.flush()
            os.fsync(file.fileno())

    def _write_into_reserve(self, text: str) -> None:
        # Overwriting needs no new blocks, and nobody else can take them meanwhile.
        with self.reserve_file.open("rb+") as file:
            file.write(text.encode())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self.reserve_file.replace(self.status_file)

    def heartbeat_age_s(self) -> float | None:
        """Seconds since the last sign of life; None before the first."""
        try:
            return max(0.0, time.time() - self.heartbeat_file.stat().st_mtime)
        except FileNotFoundError:
            return None

    def heartbeat(self) -> int | None:
        """Return what changes with each sign of life; None before the first."""
        try:
            return self.heartbeat_file.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def version(self) -> tuple[int, int] | None:
        """Return what changes with each new status; None where there is none."""
        try:
            about = self.status_file.stat()
        except OSError:
            return None
        return about.st_mtime_ns, about.st_ino

    def size_bytes(self) -> int:
        """Return what deleting the folder frees: a file with a name elsewhere counts nothing."""
        seen: dict[tuple[int, int], int] = {}
        freed = 0
        for path in self.path.rglob("*"):
            with suppress(FileNotFoundError):
                stat = path.lstat()
                key = (stat.st_dev, stat.st_ino)
                seen[key] = seen.get(key, 0) + 1
                if S_ISREG(stat.st_mode) and seen[key] >= stat.st_nlink:
                    freed += stat.st_size
        return freed

    def grace_s(self, default: float) -> float:
        """Return the grace period that the cancel file asks for."""
        try:
            return float(self.cancel_file.read_text())
        except (OSError, ValueError):
            return default

    @contextmanager
    def hold(self, timeout_s: float) -> Iterator[None]:
        """Hold the folder's lock.

        Raises
        ------
        JobError
            Another process holds it.
        """
        lock = FileLock(self.path / ".lock", timeout=timeout_s)
        try:
            lock.acquire()
        except Timeout:
            raise JobError(
                f"Another worker holds the job {self.path.name}.", "Wait for it, or cancel the job."
            ) from None
        try:
            yield
        finally:
            lock.release()


def _read(path: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate(read_json(path))
    except (InputError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise JobError(f"The job file {path} is unusable: {reason}") from error


def _patiently(path: Path, text: str) -> None:
    # On Windows a reader that has the file open forbids its replacement for a moment.
    for _ in range(20):
        with suppress(PermissionError):
            return write_text(path, text)
        time.sleep(0.05)
    return write_text(path, text)
