from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_backsplit.backend.jobs import Job, Note, Progress, State, submit
from napari_backsplit.backend.jobs.runner import run_here
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures import engines
from napari_backsplit.backend.structures.clicks import draw_clicks
from napari_backsplit.backend.structures.consent import give_consent, server_of
from napari_backsplit.backend.structures.prompts import Box, Point
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.backend.structures.simulation import SegmentSpec, submit_segment
from napari_backsplit.backend.volume import Geometry, read_geometry, read_mask
from tests.backend.jobs.job_support import reaches, until, works
from tests.backend.structures.organ_project import (
    CORONAL,
    SHAPE,
    STRAIGHT,
    clicked_by_hand,
    make_project,
    organ,
    write,
)
from tests.backend.structures.slice_engine import LICENCE, MODEL, REGISTRY, SLOW, TRACE, Slices

EMPTY = np.zeros(SHAPE, np.uint8)
ASKED: dict[str, Any] = {
    "structures": ["kidney"],
    "engine": "slices",
    "clicks": 3,
    "reference": "project",
}


@pytest.fixture(autouse=True)
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The engine of slices is the only one; what is asked of it is written here."""
    monkeypatch.setattr(engines, "ENGINES", REGISTRY)
    monkeypatch.setenv("BACKSPLIT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv(TRACE, str(tmp_path / "trace"))
    return tmp_path / "trace"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Cases with a kidney, with an empty mask of it, and without any mask of it."""
    return make_project(tmp_path / "project", organ(), EMPTY, None)


def done(project: Path, **asked: Any) -> Job:
    job = submit(project, "segment", {**ASKED, **asked}, start=False)
    assert run_here(job) is State.SUCCEEDED, job.status().message
    return job


def failed(project: Path, **asked: Any) -> str:
    job = submit(project, "segment", {**ASKED, **asked}, start=False)
    assert run_here(job) is State.FAILED
    return job.status().message


def rows(job: Job) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = json.loads((job.folder / "segment.json").read_text())["rows"]
    return read


def slices_clicked(clicks: int, seed: int = 0) -> set[int]:
    drawn = draw_clicks(organ(), clicks, seed, "case_001", "kidney")
    return {click.at[0] for click in drawn}


# ---------------------------------------------------------------------- what comes out


def test_masks_and_their_dice_are_those_of_the_clicks(project: Path) -> None:
    job = done(project)
    clicked = slices_clicked(3)
    expected = organ() * np.isin(np.arange(SHAPE[0]), list(clicked))[:, None, None]
    mask = read_mask(job.folder / "masks" / "case_001" / "kidney.nii.gz", STRAIGHT)
    np.testing.assert_array_equal(mask.array, expected)
    first, absent, missing = rows(job)
    assert first["dice"] == pytest.approx(2 * len(clicked) / (len(clicked) + 5))
    assert (first["state"], first["prompts"], first["voxels"]) == ("segmented", 3, expected.sum())
    assert first["seconds_per_prompt"] > 0
    assert (absent["case"], absent["state"], absent["dice"]) == ("case_002", "absent", None)
    assert (missing["case"], missing["state"]) == ("case_003", "no reference")
    assert job.status().result == {
        "masks": f"jobs/{job.id}/masks",
        "table": f"jobs/{job.id}/segment.json",
    }


def test_a_case_without_the_structure_is_in_no_mean(project: Path) -> None:
    (summary,) = json.loads((done(project).folder / "segment.json").read_text())["summary"]
    assert (summary["segmented"], summary["absent"], summary["missing"]) == (1, 1, 1)
    assert summary["dice_mean"] == summary["dice_min"]


def test_each_click_is_asked_for_on_the_mask_before_it_in_one_run(
    project: Path, trace: Path
) -> None:
    job = done(project, cases=["case_001"])
    asked = [line.split() for line in trace.read_text().splitlines()]
    assert [words[0] for words in asked] == ["start", "segment", "segment", "segment", "close"]
    assert {words[1] for words in asked[1:-1]} == {f"{job.id}/case_001/kidney"}
    assert [words[2] for words in asked[1:-1]] == ["1", "2", "3"]
    assert asked[1][3] == "0"
    assert asked[2][3] == str(5 * 7)  # a slice of the organ


@pytest.mark.parametrize("geometry", [STRAIGHT, CORONAL], ids=["straight", "coronal"])
def test_a_mask_lies_on_the_image_s_own_grid(tmp_path: Path, geometry: Geometry) -> None:
    project = make_project(tmp_path / "turned", organ(), geometry=geometry)
    job = done(project, clicks=200)  # every voxel
    file = job.folder / "masks" / "case_001" / "kidney.nii.gz"
    assert geometry.difference(read_geometry(file)) is None
    np.testing.assert_array_equal(read_mask(file).array, organ())
    assert rows(job)[0]["dice"] == 1


def test_the_provenance_says_who_made_it_from_what(project: Path) -> None:
    job = done(project, seed=4)
    record = json.loads((job.folder / "masks" / "case_001" / "kidney.json").read_text())
    drawn = draw_clicks(organ(), 3, 4, "case_001", "kidney")
    assert (record["engine"], record["model"], record["licence"]) == ("slices", MODEL, LICENCE)
    assert record["prompts"] == [click.model_dump(mode="json") for click in drawn]
    assert record["notes"] == ["Simulated: 3 random clicks in a reference mask, seed 4."]
    assert (record["job"], record["channel"]) == (job.id, "CT")


def test_another_channel_and_this_job_s_settings(project: Path, trace: Path) -> None:
    job = done(project, channel="PET", settings={"device": "cuda:1"}, cases=["case_001"])
    record = json.loads((job.folder / "masks" / "case_001" / "kidney.json").read_text())
    assert record["channel"] == "PET"
    assert trace.read_text().startswith("start cuda:1\n")


def test_a_folder_of_references_for_several_structures(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    write(organ(), folder / "case_003" / "spleen.nii.gz")
    write(organ() * 7, folder / "case_003" / "kidney.nii.gz")
    job = done(project, structures=["spleen", "kidney"], reference=str(folder))
    found = {(row["case"], row["structure"]): row["state"] for row in rows(job)}
    assert found == {
        (case, name): "segmented" if case == "case_003" else "no reference"
        for case in ("case_001", "case_002", "case_003")
        for name in ("spleen", "kidney")
    }


def test_progress_and_what_was_left_out_are_told(project: Path) -> None:
    events, _ = done(project).events()
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(p.done, p.total) for p in progress] == [(0, 3)] * 4 + [(1, 3), (2, 3), (3, 3)]
    assert progress[2].text == "case_001: kidney, prompt 2 of 3"
    assert progress[0].eta_s is None
    assert progress[-1].eta_s == 0
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == ["case_003 has no reference mask of kidney: it is left out."]


# ---------------------------------------------------------------------- a journal


REPLAY: dict[str, Any] = {"structures": ["liver"], "clicks": None, "cases": ["case_003"]}


def test_a_journal_is_replayed_without_what_was_undone(project: Path) -> None:
    journal = clicked_by_hand(project, (2, 4, 4), (4, 4, 4), (6, 4, 4))
    job = done(project, **REPLAY, reference="", prompts=str(journal))
    expected = organ() * np.isin(np.arange(SHAPE[0]), [2, 4])[:, None, None]
    mask = read_mask(job.folder / "masks" / "case_003" / "liver.nii.gz")
    np.testing.assert_array_equal(mask.array, expected)
    (row,) = rows(job)
    assert (row["prompts"], row["dice"]) == (2, None)


def test_a_replay_is_measured_where_there_is_a_reference(project: Path, tmp_path: Path) -> None:
    journal = clicked_by_hand(project, (2, 4, 4), (6, 4, 4))
    folder = tmp_path / "masks"
    write(organ(), folder / "case_003" / "liver.nii.gz")
    job = done(project, **REPLAY, reference=str(folder), prompts=str(journal))
    assert rows(job)[0]["dice"] == pytest.approx(2 * 1 / (1 + 5))


def test_a_journal_without_that_structure(project: Path) -> None:
    journal = clicked_by_hand(project, (2, 4, 4), (6, 4, 4))
    asked = {**REPLAY, "structures": ["kidney"], "reference": "", "prompts": str(journal)}
    assert "no prompts of kidney" in failed(project, **asked)


def journal_of(project: Path, prompt: Box | Point) -> str:
    """Write a journal with one prompt, whatever an engine would make of it."""
    bounds = [[0, 1], [0, 1], [0, 1]]
    entries = [
        {"op": "start", "structure": "liver", "mask": "", "origin": {}},
        {"op": "prompt", "structure": "liver", "id": 1, "prompt": prompt.model_dump()},
        {
            "op": "change",
            "structure": "liver",
            "id": 2,
            "tool": "slices",
            "prompt": 1,
            "about": {},
            "bounds": bounds,
            "voxels": "eJwLAAABAAE=",
        },
    ]
    file = project / "own.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(file)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Point(at=(8, 0, 0)), "The point at .* = 8, 0, 0 lies outside of the image of 8 x 10 x 12"),
        (Box(low=(0, 0, 0), high=(1, 2, 2)), "The engine slices has no use for a box. It knows"),
    ],
)
def test_a_prompt_that_does_not_fit(project: Path, prompt: Any, message: str) -> None:
    asked = {**REPLAY, "reference": "", "prompts": journal_of(project, prompt)}
    assert re.search(message, failed(project, **asked))


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"engine": "magic"}, "There is no engine 'magic'. Engines: slices."),
        ({"structures": ["spleen"]}, "The project has no structure 'spleen'."),
        ({"structures": ["liver"]}, "No case has a reference mask of liver."),
        ({"clicks": 0}, "clicks: Input should be greater than or equal to 1"),
        ({"clicks": None}, "give either a number of clicks or a journal of prompts"),
        ({"prompts": "x"}, "give either a number of clicks or a journal of prompts"),
        ({"reference": ""}, "clicks are drawn in reference masks"),
        ({"cases": []}, "No case was chosen."),
        ({"cases": ["case_009"]}, "There is no case 'case_009'."),
        ({"channel": "MR"}, "The project has no channel MR."),
        ({"settings": {"key": "secret"}}, "a key is never kept with a job"),
        ({"settings": {"device": "tpu"}}, "The settings of the engine: device"),
    ],
)
def test_what_cannot_work_is_said(project: Path, asked: dict[str, Any], message: str) -> None:
    assert message in failed(project, **asked)


def test_a_reference_on_another_grid_or_with_several_ids(project: Path, tmp_path: Path) -> None:
    shifted = Geometry(SHAPE, (3.0, 1.5, 1.0), (9.0, -20.0, 5.0), STRAIGHT.direction)
    write(organ(), tmp_path / "shifted" / "case_001" / "kidney.nii.gz", shifted)
    said = failed(project, reference=str(tmp_path / "shifted"))
    assert "The reference of kidney for case_001 is not on the grid of the image." in said
    several = organ()
    several[3] *= 2
    write(several, tmp_path / "several" / "case_001" / "kidney.nii.gz")
    assert "has the ids 1, 2" in failed(project, reference=str(tmp_path / "several"))


def test_a_failure_closes_the_engine(project: Path, trace: Path) -> None:
    failed(project, **{**REPLAY, "reference": "", "prompts": journal_of(project, BOX)})
    assert trace.read_text().splitlines() == ["start auto", "close"]


BOX = Box(low=(0, 0, 0), high=(1, 2, 2))


def test_no_image_goes_to_another_machine_without_consent(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ENGINES", {"nninteractive": REGISTRY["slices"]})
    elsewhere = {"where": "elsewhere", "url": "https://gpu.example:1527"}
    said = failed(project, engine="nninteractive", settings=elsewhere)
    server = server_of("nninteractive", EngineSettings.model_validate(elsewhere))
    assert f"The images of this project would be sent to {server}." in said
    with Project.open(project) as opened:
        give_consent(opened, server)
    done(project, engine="nninteractive", settings=elsewhere)


# ---------------------------------------------------------------------- stop and go on


def test_a_resumed_job_does_not_redo_what_is_done(
    tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "two", organ(), organ())
    segment = Slices.segment

    def breaks(self: Slices, request: Any, cancelled: Callable[[], bool]) -> Any:
        if "case_002" in request.run:
            raise engines.EngineError("It broke.", "Try again.")
        return segment(self, request, cancelled)

    monkeypatch.setattr(Slices, "segment", breaks)
    job = submit(project, "segment", ASKED, start=False)
    assert run_here(job) is State.FAILED
    assert job.status().message == "It broke. Try again."
    first = (job.folder / "masks" / "case_001" / "kidney.json").stat().st_mtime_ns
    monkeypatch.setattr(Slices, "segment", segment)
    trace.unlink()
    again = submit(project, "segment", ASKED, start=False)
    (job.folder / "masks").rename(again.folder / "masks")
    assert run_here(again) is State.SUCCEEDED
    assert "case_001" not in trace.read_text()
    assert [row["prompts"] for row in rows(again)] == [3, 3]
    assert (again.folder / "masks" / "case_001" / "kidney.json").stat().st_mtime_ns == first


COMMAND = (
    sys.executable,
    "-c",
    "import sys; from napari_backsplit.backend.jobs.worker import main;"
    "sys.exit(main(sys.argv[1], tasks={'segment': 'tests.backend.structures.slice_engine:run'}))",
)
ROOT = Path(__file__).parents[3]


def test_a_cancelled_job_ends_its_engine_and_goes_on_when_resumed(
    project: Path, trace: Path
) -> None:
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", SLOW: "1"}
    job = submit(project, "segment", ASKED, env=env, command=COMMAND)
    works(job)
    until(lambda: trace.exists() and "segment" in trace.read_text())
    job.cancel()
    reaches(job, State.CANCELLED)
    assert trace.read_text().splitlines()[-1] == "close"
    job.resume(env={key: env[key] for key in env if key != SLOW}, command=COMMAND)
    assert job.wait(20).state is State.SUCCEEDED
    assert rows(job)[0]["state"] == "segmented"


# ---------------------------------------------------------------------- before the job


def test_the_job_s_files_hold_no_name_of_a_reference(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Doe^Jane"
    file = write(organ(), folder / "original_2.nii.gz")
    spec = SegmentSpec.model_validate({**ASKED, "reference": str(folder), "engine": "magic"})
    with Project.open(project, read_only=True) as opened:
        job = submit_segment(opened, spec, {("case_003", "kidney"): file})
    assert job.wait(20).state is State.FAILED  # the child knows no engine of that name
    kept = job.folder / "references" / "case_003" / "kidney.nii.gz"
    np.testing.assert_array_equal(read_mask(kept).array, organ())
    for path in job.folder.rglob("*"):
        assert path.is_dir() or b"Doe" not in path.read_bytes()
