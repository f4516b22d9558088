from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from napari_backsplit.backend.errors import ProjectError
from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.lock import is_held

HOLD = """
import sys
from napari_backsplit.backend.project import Project
project = Project.open(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(project):
    """A process that holds the project."""
    project.close()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(project.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_holds_the_project(project, holder):
    who = rf"process {holder.pid} on {socket.gethostname()} since 20\d\d-"
    with pytest.raises(ProjectError, match=who):
        Project.open(project.folder)
    with Project.open(project.folder, fall_back=True) as reader:
        assert reader.read_only
        assert f"process {holder.pid}" in reader.notice


def test_a_second_window_of_one_process_is_refused_too(project):
    with pytest.raises(ProjectError, match=f"process {os.getpid()}"):
        Project.open(project.folder)


def test_a_killed_holder_lets_go(project, holder):
    assert is_held(project.folder)
    holder.kill()
    holder.wait()
    assert not is_held(project.folder)
    with Project.open(project.folder) as writer:
        assert not writer.read_only


def test_a_closed_project_can_be_opened_and_not_written(project):
    project.close()
    project.close()
    with Project.open(project.folder):
        pass
    with pytest.raises(ProjectError, match="closed"):
        project.set_supports([])


def test_a_reader_writes_nothing_and_sees_what_the_writer_did(project, make):
    reader = Project.open(project.folder, read_only=True)
    with pytest.raises(ProjectError, match="opened to read only"):
        reader.add_case({"CT": make.image("a.nii.gz")})
    project.add_case({"CT": make.image("b.nii.gz")})
    assert reader.case_ids() == ()
    reader.reload()
    assert reader.case_ids() == ("case_001",)


def test_a_word_about_the_holder_that_cannot_be_read_is_no_obstacle(project):
    write_json(project.folder / ".lock.json", [])
    assert is_held(project.folder)
    with pytest.raises(ProjectError, match="in another process"):
        Project.open(project.folder)


def test_a_holder_elsewhere_is_believed(project):
    word = {"pid": 2**22 + 1, "host": "elsewhere", "since": "2026-01-01"}
    write_json(project.folder / ".lock.json", word)
    assert is_held(project.folder)


def test_the_word_about_the_holder_goes_with_the_lock(project):
    word = project.folder / ".lock.json"
    assert json.loads(word.read_text())["pid"] == os.getpid()
    project.close()
    assert not word.exists()


def test_a_failed_opening_lets_go(project):
    project.close()
    path = project.folder / "project.json"
    good = path.read_text()
    path.write_text("{}")
    with pytest.raises(ProjectError):
        Project.open(project.folder)
    path.write_text(good)
    Project.open(project.folder).close()
