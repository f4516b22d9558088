from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_backsplit.backend.jobs import Job, list_jobs
from napari_backsplit.backend.jobs.runner import run_here
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures import engines
from napari_backsplit.backend.structures.consent import server_of
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.backend.volume import Geometry, Volume
from napari_backsplit.cli import main
from tests.backend.structures.organ_project import (
    SHAPE,
    STRAIGHT,
    clicked_by_hand,
    make_project,
    organ,
    predict_job,
    write,
)
from tests.backend.structures.slice_engine import REGISTRY
from tests.cli_support import Answer, Backsplit

CLICKS = ("segment", "--engine", "slices", "--clicks", "200")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Jobs run in this process, which knows the engine of slices alone."""

    def start(job: Job, **how: Any) -> None:
        run_here(job)

    monkeypatch.setattr(engines, "ENGINES", REGISTRY)
    monkeypatch.setattr(Job, "start", start)
    monkeypatch.setenv("BACKSPLIT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("BACKSPLIT_PROJECT", raising=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cases with a kidney, one without a mask of it; and the present folder."""
    folder = make_project(tmp_path / "project", organ(), organ() * 0, None)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def backsplit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Backsplit:
    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["backsplit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Answer(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def spleens(tmp_path: Path) -> Path:
    """Reference masks of a structure that the project does not have, named as the cases were."""
    folder = tmp_path / "spleens"
    write(organ(), folder / "original_0.nii.gz")
    write(organ(), folder / "original_2.nii.gz")
    return folder


def supports(project: Path) -> tuple[str, ...]:
    with Project.open(project, read_only=True) as opened:
        return opened.schema.support_names


# ---------------------------------------------------------------------- segment


def test_a_new_support_is_clicked_measured_and_adopted(
    backsplit: Backsplit, project: Path, spleens: Path
) -> None:
    code, out, err = backsplit(*CLICKS, "--support", "spleen", "--from-reference", spleens)
    assert code == 0, err
    assert re.search(r"spleen +2 +0 +1 +1\.0000 +1\.0000 +0\.\d\d", out)
    assert "2 mask(s) adopted, not reviewed yet." in out
    assert "case_002 has no reference mask of spleen: it is left out." in err
    assert supports(project) == ("kidney", "liver", "spleen")
    with Project.open(project, read_only=True) as opened:
        np.testing.assert_array_equal(opened.mask("case_003", "spleen"), organ())
        assert opened.mask_path("case_002", "spleen") is None
        origin = opened.provenance("case_003", "spleen")
    assert origin is not None  # there are fewer voxels than clicks
    assert (origin.engine, origin.review, len(origin.prompts)) == ("slices", "unreviewed", 175)


def test_masks_that_are_there_stay_and_that_is_said(backsplit: Backsplit, project: Path) -> None:
    clicks = ("--support", "kidney", "--from-reference", "project", "--clicks", "1")
    code, out, _ = backsplit(*CLICKS[:3], *clicks)
    assert code == 0
    assert re.search(r"kidney +1 +1 +1 +0\.3333 +0\.3333", out)  # a slice of five
    assert "1 mask(s) stay in jobs/0001-segment alone" in out
    assert "(kidney of case_001). To replace: backsplit adopt 0001-segment --replace" in out
    with Project.open(project, read_only=True) as opened:
        np.testing.assert_array_equal(opened.mask("case_001", "kidney"), organ())
    assert backsplit("adopt", "1", "--replace").code == 0
    with Project.open(project, read_only=True) as opened:
        assert opened.mask("case_001", "kidney").sum() == organ()[2].sum()


def test_a_copy_of_a_support_is_clicked_in_its_reference_and_stands_beside_it(
    backsplit: Backsplit, project: Path
) -> None:
    options = ("--from-reference", "project", "--clicks", "1", "--json")
    copied = backsplit(*CLICKS[:3], *options, "--support", "kidney_1_click=kidney")
    assert copied.code == 0, copied.err
    (summary,) = json.loads(copied.out)["summary"]
    assert (summary["structure"], summary["segmented"]) == ("kidney_1_click", 1)
    assert summary["dice_mean"] == pytest.approx(1 / 3)  # a slice of five
    assert supports(project) == ("kidney", "liver", "kidney_1_click")
    plain = backsplit(*CLICKS[:3], *options, "--support", "kidney")
    assert json.loads(plain.out)["summary"][0]["dice_mean"] == summary["dice_mean"]
    jobs = [job.folder / "masks" / "case_001" for job in list_jobs(project)]
    records = [json.loads(file.read_text()) for folder in jobs for file in folder.glob("*.json")]
    assert records[0]["prompts"] == records[1]["prompts"], "the same clicks as of the original"
    with Project.open(project, read_only=True) as opened:
        assert np.array_equal(opened.mask("case_001", "kidney"), organ())
        assert opened.mask("case_001", "kidney_1_click").sum() == organ()[2].sum()
        assert opened.mask_path("case_003", "kidney_1_click") is None
        origin = opened.provenance("case_001", "kidney_1_click")
    assert origin is not None
    assert "1 random clicks in a reference mask of kidney, seed 0." in origin.notes[0]


def test_a_copy_is_clicked_in_a_folder_of_references(
    backsplit: Backsplit, project: Path, tmp_path: Path
) -> None:
    for name in ("spleen", "colon"):
        write(organ(), tmp_path / "masks" / name / "original_2.nii.gz")
    asked = ("--from-reference", tmp_path / "masks", "--pattern", "{structure}/{case}.nii.gz")
    several = ("--support", "spleen_clicked=spleen", "--support", "colon")
    code, _, err = backsplit(*CLICKS, *asked, *several)
    assert code == 0, err
    assert supports(project) == ("kidney", "liver", "spleen_clicked", "colon")
    for first in ("one=spleen", "spleen"):
        twice = ("--support", first, "--support", "two=spleen")
        code, _, err = backsplit(*CLICKS, *asked, *twice)
        assert code != 0
        assert "same references" in err


@pytest.mark.parametrize("name", ["Kidney!=kidney", "copy=Kidney!", "copy=spleen"])
def test_a_copy_of_what_is_not_there_is_refused(
    backsplit: Backsplit, project: Path, name: str
) -> None:
    code, _, err = backsplit(*CLICKS, "--from-reference", "project", "--support", name)
    assert code != 0
    assert "is no name of a structure" in err or "spleen" in err
    assert supports(project) == ("kidney", "liver")
    assert list_jobs(project) == []


def test_json_is_one_value(backsplit: Backsplit, project: Path, spleens: Path) -> None:
    options = ("--support", "spleen", "--from-reference", spleens, "--json", "--case", "case_003")
    code, out, _ = backsplit(*CLICKS, *options)
    assert code == 0
    value = json.loads(out)
    assert value["job"] == "0001-segment"
    assert value["summary"][0]["dice_mean"] == 1
    assert value["adopted"] == [["case_003", "spleen"]]
    assert (value["clicks"], value["seed"], value["engine"]) == (200, 0, "slices")


def test_several_structures_and_a_pattern(
    backsplit: Backsplit, project: Path, tmp_path: Path
) -> None:
    for name in ("spleen", "colon"):
        write(organ(), tmp_path / "masks" / name / "original_2.nii.gz")
    options = ("--support", "spleen", "--support", "colon", "--from-reference", tmp_path / "masks")
    code, out, err = backsplit(*CLICKS, *options, "--pattern", "{structure}/{case}.nii.gz")
    assert code == 0, err
    assert "2 mask(s) adopted" in out
    assert supports(project) == ("kidney", "liver", "spleen", "colon")


def test_a_detached_job_is_adopted_later(
    backsplit: Backsplit, project: Path, spleens: Path
) -> None:
    options = ("--support", "spleen", "--from-reference", spleens, "--detach")
    code, out, _ = backsplit(*CLICKS, *options)
    assert code == 0
    assert "Adopt its masks when it is done: backsplit adopt 0001-segment" in out
    assert supports(project) == ("kidney", "liver")
    assert "2 mask(s) adopted" in backsplit("adopt", "1").out
    assert supports(project) == ("kidney", "liver", "spleen")


def test_masks_are_kept_where_another_holds_the_project(
    backsplit: Backsplit, project: Path, spleens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Project.open(project):
        code, out, err = backsplit(*CLICKS, "--support", "spleen", "--from-reference", spleens)
    assert code == 1
    assert "spleen" in out
    assert "The masks are in jobs/0001-segment/masks, but were not adopted" in err
    assert "Then: backsplit adopt 0001-segment" in err
    assert backsplit("adopt", "1").code == 0


def test_a_journal_of_the_project_knows_its_case(backsplit: Backsplit, project: Path) -> None:
    journal = clicked_by_hand(project, (2, 4, 4), (4, 4, 4), (6, 4, 4))
    with Project.open(project) as opened:
        opened.remove_mask("case_003", "liver")
    options = ("--engine", "slices", "--support", "liver", "--prompts", journal)
    code, out, err = backsplit("segment", *options)
    assert code == 0, err
    assert re.search(r"liver +1 +0 +0 +- +- ", out)
    with Project.open(project, read_only=True) as opened:
        assert opened.mask("case_003", "liver").sum() == 2 * organ()[2].sum()


def test_nothing_is_adopted_where_every_reference_is_empty(
    backsplit: Backsplit, project: Path
) -> None:
    options = ("--support", "kidney", "--from-reference", "project", "--case", "case_002")
    code, out, _ = backsplit(*CLICKS, *options)
    assert code == 0
    assert re.search(r"kidney +0 +1 +0 +- +- +-", out)
    assert "No mask was made." in out


K = ("--support", "kidney")
OWN = ("--from-reference", "project")
ERRORS = {
    ("--engine", "magic", "--clicks", "7", *K, *OWN): "There is no engine 'magic'",
    ("--engine", "slices", *K, *OWN): "Give either --clicks or --prompts",
    ("--engine", "slices", "--clicks", "7", "--prompts", "x", *K): "Give either --clicks or",
    ("--engine", "slices", "--clicks", "7", *K): "Clicks are drawn in reference masks",
    ("--engine", "slices", "--clicks", "0", *K, *OWN): "--clicks 0: input should be greater",
    (*CLICKS[1:], "--seed", "-1", *K, *OWN): "--seed -1: input should be greater",
    (*CLICKS[1:], *OWN, "--support", "Left psoas!"): "--support 'Left psoas!' is no name",
    (*CLICKS[1:], *OWN, "--support", "lesion"): "lesion is a target",
    (*CLICKS[1:], *OWN, "--support", "spleen"): "The project has no structure 'spleen'",
    (*CLICKS[1:], *OWN, "--support", "liver"): "No case has a reference mask of liver",
    (*CLICKS[1:], *OWN, *K, "--case", "case_009"): "There is no case 'case_009'",
    (*CLICKS[1:], *OWN, *K, "--channel", "MR"): "The project has no channel MR",
    (*CLICKS[1:], *OWN, *K, "--send-to", "host"): "--send-to 'host': no other machine is asked",
    (*CLICKS[1:], *OWN, *K, "--device", "tpu"): "--device 'tpu'",
    (*CLICKS[1:], *K, "--from-reference", "nowhere"): "nowhere",
    (*CLICKS[1:], *K, "--from-reference", "images"): "images has no reference mask of any case",
    (*CLICKS[1:], *K, "--support", "liver", "--from-reference", "images", "--pattern",
     "{case}.nii.gz"): "does not tell kidney, liver apart",
    ("--engine", "slices", *K, "--prompts", "nowhere"): "There is no journal nowhere",
    ("--engine", "slices", *K, "--prompts", "project.json"): "A journal belongs to one case",
}  # fmt: skip


@pytest.mark.parametrize("options", ERRORS, ids=" ".join)
def test_bad_input_is_one_sentence_and_makes_no_job(
    backsplit: Backsplit, project: Path, options: tuple[str, ...]
) -> None:
    code, out, err = backsplit("segment", *options)
    assert (code, out) == (1, "")
    problem, remedy = err.splitlines()
    assert problem.startswith("Error: ")
    assert ERRORS[options] in problem
    assert remedy
    assert list_jobs(project) == []
    assert supports(project) == ("kidney", "liver")


def test_an_engine_that_lacks_something_makes_no_job(backsplit: Backsplit, project: Path) -> None:
    config = project.parent / "config"
    config.mkdir()
    (config / "engines.json").write_text('{"model_folder": "nowhere"}')
    answer = backsplit(*CLICKS, *K, *OWN)
    assert (answer.code, answer.err) == (1, "Error: There is no model.\nChoose one.\n")
    assert list_jobs(project) == []


def test_a_server_elsewhere_needs_consent_once(
    backsplit: Backsplit, project: Path, spleens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ENGINES", {"nninteractive": REGISTRY["slices"]})
    config = project.parent / "config"
    config.mkdir()
    settings = {"where": "elsewhere", "url": "https://gpu.example:1527", "key": "secret"}
    (config / "engines.json").write_text(json.dumps(settings))
    server = server_of("nninteractive", EngineSettings.model_validate(settings))
    spleen = ("--support", "spleen", "--from-reference", spleens, "--clicks", "2")
    asked = ("segment", "--engine", "nninteractive", *spleen)
    code, _, err = backsplit(*asked)
    assert code == 1
    assert err.splitlines()[1] == f"If you agree, once: --send-to {server}"
    assert f"{server} is asked" in backsplit(*asked, "--send-to", "other.example").err
    assert list_jobs(project) == []
    assert backsplit(*asked, "--send-to", server).code == 0
    assert backsplit(*asked).code == 0
    for file in project.rglob("*"):
        assert file.is_dir() or b"secret" not in file.read_bytes()


def test_references_on_another_grid_make_no_job(
    backsplit: Backsplit, project: Path, tmp_path: Path
) -> None:
    shifted = Geometry(SHAPE, STRAIGHT.spacing_mm, (9.0, 0.0, 0.0), STRAIGHT.direction)
    write(organ(), tmp_path / "masks" / "original_1.nii.gz", shifted)
    code, _, err = backsplit(*CLICKS, *K, "--from-reference", tmp_path / "masks")
    assert code == 1
    assert "The reference of kidney for case_002 is not on the grid of the image." in err
    assert list_jobs(project) == []


def test_a_project_without_a_case(
    backsplit: Backsplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path / "empty")
    code, _, err = backsplit(*CLICKS, *K, *OWN, "-p", tmp_path / "empty")
    assert code == 1
    assert "The project has no case." in err


# ---------------------------------------------------------------------- engines


def test_every_engine_is_listed_with_its_state(backsplit: Backsplit) -> None:
    rows = {row["name"]: row for row in json.loads(backsplit("engines", "--json").out)}
    assert list(rows) == ["slices", "paint"]
    assert rows["slices"]["state"] == rows["paint"]["state"] == "ready"
    assert (rows["slices"]["model"], rows["slices"]["licence"]) == ("slices 1.0", "CC0")
    assert set(rows["paint"]) == set(rows["slices"])
    out = backsplit("engines").out
    assert re.search(r"slices +ready +slices 1.0 +CC0", out)
    assert "it works in the window only" in " ".join(out.split())


def test_an_engine_without_its_package_says_what_to_install(
    backsplit: Backsplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ENGINES", {"far": "no_such_package.far:Far"})
    (row, _) = json.loads(backsplit("engines", "--json").out)
    assert (row["state"], row["remedy"]) == ("missing", "Install it: pip install no_such_package")


# ---------------------------------------------------------------------- adopt


def test_a_predicted_lesion_is_adopted_where_there_is_none(
    backsplit: Backsplit, project: Path
) -> None:
    predict_job(project, "case_001", "case_003")
    with Project.open(project) as opened:
        opened.set_mask("case_001", "lesion", Volume(organ(), STRAIGHT), {})
    code, out, err = backsplit("adopt", "1")
    assert (code, err) == (0, "")
    assert "1 mask(s) adopted, not reviewed yet." in out
    assert "1 mask(s) stay in jobs/0001-predict alone" in out
    with Project.open(project, read_only=True) as opened:
        assert opened.mask("case_003", "lesion").sum() == 8
        assert opened.mask("case_001", "lesion").sum() == organ().sum()


def test_a_held_out_case_gets_a_warning(backsplit: Backsplit, project: Path) -> None:
    predict_job(project, "case_001", "case_003")
    with Project.open(project) as opened:
        opened.reserve_test(ids=["case_003"])
    code, _, err = backsplit("adopt", "1", "--case", "case_003")
    assert code == 0
    assert err.startswith("case_003: held out.")
    assert backsplit("adopt", "1", "--case", "case_001").err == ""


def test_only_some_jobs_can_be_adopted(
    backsplit: Backsplit, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_backsplit.cli import jobs

    job = SimpleNamespace(id="0001-train", spec=SimpleNamespace(task="train"))
    monkeypatch.setattr(jobs, "find_job", lambda *arguments: job)
    assert "0001-train has no masks to adopt" in backsplit("adopt", "1").err


@pytest.mark.parametrize("command", [(*CLICKS, *K, *OWN), ("adopt", "1")], ids=["segment", "adopt"])
def test_a_missing_project_is_named(
    backsplit: Backsplit, tmp_path: Path, command: tuple[str, ...]
) -> None:
    code, out, err = backsplit(*command, "-p", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"Error: .*/nowhere is no project\.\nChoose a folder with .*\n", err)
    assert not (tmp_path / "nowhere").exists()
