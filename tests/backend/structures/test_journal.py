from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.files import read_lines
from napari_backsplit.backend.structures.journal import (
    EMPTY,
    Journal,
    fingerprint,
    pack,
    unpack,
)


def test_entries_are_read_in_order_with_who_and_when(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "case" / "journal.jsonl", "ann")
    journal.append({"op": "undo", "structure": "kidney", "id": 1})
    journal.append({"op": "redo", "structure": "kidney", "id": 1})
    assert [(e["op"], e["who"]) for e in journal.entries()] == [("undo", "ann"), ("redo", "ann")]
    assert all(entry["when"] for entry in journal.entries())


@given(st.data())
def test_a_journal_cut_anywhere_loses_at_most_its_last_entry(data: st.DataObject) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"journal-{os.getpid()}.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    ends = [0]
    for number in range(4):
        journal.append({"op": "undo", "structure": "bläschen", "id": number})
        ends.append(path.stat().st_size)
    cut = data.draw(st.integers(0, ends[-1]))
    with path.open("rb+") as file:
        file.truncate(cut)
    whole = sum(end <= cut for end in ends[1:])
    assert [e["id"] for e in read_lines(path)] == list(range(whole))
    journal.append({"op": "undo", "structure": "kidney", "id": 9})
    assert [e["id"] for e in read_lines(path)] == [*range(whole), 9]
    path.unlink()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"op": "undo"}\nnonsense\n{"op": "redo"}\n')
    with pytest.raises(InputError, match=r"Line 2 of journal\.jsonl"):
        list(read_lines(path))


@given(arrays(bool, st.tuples(*[st.integers(1, 6)] * 3)))
def test_a_difference_is_read_as_it_was_written(difference: np.ndarray) -> None:
    bounds = tuple((2, 2 + n) for n in difference.shape)
    np.testing.assert_array_equal(unpack(pack(difference), bounds), difference)


def test_a_difference_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="damaged"):
        unpack(pack(np.ones((2, 2, 2), bool)), ((0, 9), (0, 9), (0, 9)))


def test_the_fingerprint_tells_masks_apart() -> None:
    mask = np.zeros((3, 3, 3), bool)
    assert fingerprint(mask) == fingerprint(None) == EMPTY
    mask[0, 0, 0] = True
    other = np.roll(mask, 1)
    assert len({EMPTY, fingerprint(mask), fingerprint(other)}) == 3
    assert fingerprint(mask) == fingerprint(mask.copy())


FULL_DISK = """
import resource, sys
from pathlib import Path
from napari_backsplit.backend.errors import ProjectError
from napari_backsplit.backend.structures.journal import Journal
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
journal.append({"op": "undo", "id": 1})
size = Path(sys.argv[1]).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
try:
    journal.append({"op": "undo", "id": 2, "voxels": "x" * 100})
except ProjectError as error:
    print(error.problem)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)) \
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY else None
print(Path(sys.argv[1]).stat().st_size == size)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
def test_no_space_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said, same = done.stdout.splitlines()
    assert "cannot be written" in said
    assert same == "True"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "case").write_text("a file where a folder should be")
    with pytest.raises(ProjectError, match="The last step was not kept"):
        Journal(tmp_path / "case" / "journal.jsonl").append({"op": "undo"})
