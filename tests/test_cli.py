"""The `backsplit` command as a person meets it: help, errors in one sentence, and its results."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from napari_backsplit import __version__
from napari_backsplit.backend.jobs import submit
from napari_backsplit.backend.phantom import PhantomSpec, sample_project
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Geometry, Volume, read_label_map, write_volume
from napari_backsplit.cli import app, main
from tests.backend.jobs.job_support import COMMAND, until
from tests.backend.jobs.job_support import ENV as TINY
from tests.cli_support import Answer, Backsplit

AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
GRID = Geometry((4, 5, 6), (3.0, 1.5, 1.0), (0.0, -20.0, 5.0), AXES)
ENV = {"OMP_NUM_THREADS": "1"}


UPDATE = "Update napari-backsplit.\n"


@pytest.fixture
def backsplit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Backsplit:
    """Run the command in this process, as its script does."""
    monkeypatch.delenv("BACKSPLIT_PROJECT", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["backsplit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Answer(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three synthetic cases, one of them held out; read it, or copy it."""
    folder = tmp_path_factory.mktemp("cli") / "project"
    sample_project(folder, 3, train=2, test=1, spec=PhantomSpec(shape=(12, 16, 16))).close()
    return folder


@pytest.fixture
def project(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small project, and the present folder."""
    folder = tmp_path / "project"
    shutil.copytree(small, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def empty(backsplit: Backsplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without a case, made by the command, and the present folder."""
    folder = tmp_path / "made"
    structures = ("--target", "lesion", "--support", "kidney", "--support", "liver")
    assert backsplit("init", folder, "--channel", "CT", *structures).code == 0
    monkeypatch.chdir(folder)
    return folder


def write(path: Path, array: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(np.asarray(array), GRID), path)
    return path


def image(path: Path, seed: int) -> Path:
    return write(path, np.random.default_rng(seed).normal(size=GRID.shape).astype(np.float32))


def mask(path: Path, *ids: int) -> Path:
    array = np.zeros(GRID.shape, np.uint8)
    array.flat[: len(ids)] = ids
    return write(path, array)


# ---------------------------------------------------------------------- help


def commands(
    group: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], typer.core.TyperCommand]]:
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_of_every_command(backsplit: Backsplit, path: tuple[str, ...]) -> None:
    answer = backsplit(*path, "--help")
    assert answer.code == 0
    shown = re.sub(r"[│\s]+", " ", answer.out)
    for parameter in COMMANDS[path].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("--") and not getattr(parameter, "hidden", False):
                assert option in shown
    for name in getattr(COMMANDS[path], "commands", {}):
        assert f" {name} " in shown


def test_all_steps_have_a_command() -> None:
    steps = {"init", "reserve", "check", "plan", "train", "finetune", "predict", "compare"}
    assert steps | {
        "sample",
        "fuse",
        "export",
        "demo",
        "import",
        "jobs",
        "segment",
        "engines",
        "adopt",
    } <= {path[0] for path in COMMANDS if path}


def test_a_real_process_without_a_command_shows_the_help() -> None:
    script = Path(sys.executable).with_name("backsplit")
    asked = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert (asked.returncode, asked.stdout) == (0, f"napari-backsplit {__version__}\n")
    failed = subprocess.run(
        [script, "check", "-p", "no/such"], capture_output=True, text=True, env={"NO_COLOR": "1"}
    )
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert re.fullmatch(r"Error: .*/no/such is no project\.\nChoose a folder.*\n", failed.stderr)


# ---------------------------------------------------------------------- errors

SPEC_ERRORS = {
    ("train", "--epochs", "0"): "--epochs '?0'?: input should be greater than or equal to 1",
    ("train", "--epochs", "many"): "--epochs 'many': input should be a valid integer",
    ("train", "--patch-size", "3,3,3"): "--patch-size '3': input should be greater than or equal",
    ("train", "--device", "tpu"): "--device 'tpu'",
    ("train", "--device", "cuda:x"): "--device 'cuda:x'",
    ("train", "--arm", "fancy"): "--arm 'fancy': input should be 'binary', 'backsplit'",
    (
        "train",
        "--optimiser",
        "lion",
    ): "--optimiser 'lion': input should be 'sgd', 'adam' or 'adamw'",
    ("train", "--initial-lr", "-1"): "--initial-lr '-1': input should be greater than 0",
    ("train", "--target-oversampling", "2"): "--target-oversampling '2'",
    ("train", "--fold", "-1"): "--fold '?-1'?",
    ("train", "--compile", "perhaps"): "--compile 'perhaps'",
    ("train", "--supports", "kidney,kidney"): "name one structure twice",
    ("plan", "--name", "Mein Plan"): "--name 'Mein Plan'",
    ("plan", "--folds", "1"): "--folds '?1'?: input should be greater than or equal to 2",
    ("plan", "--configuration", "4d"): "--configuration '4d'",
    ("plan", "--spacing-mm", "1,0,1"): "--spacing-mm '0'",
}
ERRORS = {
    **SPEC_ERRORS,
    ("compare", "a=1"): "A comparison needs two arms",
    ("compare", "a", "b=2"): "'a' has no =",
    ("compare", "a=77", "b=1"): "no job '77'",
    ("jobs", "follow", "77"): "no job '77'",
    ("jobs", "cancel", "nonsense"): "no job 'nonsense'",
    ("train", "--from", "77"): "no training job and no model folder '77'",
    ("finetune", "--from", "77"): "no training job and no model folder '77'",
    ("predict", "77"): "no training job and no model folder '77'",
    ("export", "77", "x"): "no training job and no model folder '77'",
    ("plan", "--adopt", "nowhere"): "no model folder 'nowhere'",
    ("reserve", "--fraction", "2"): "6 of 3 patients",
    ("reserve", "--count", "99"): "99 of 3 patients",
    ("reserve", "--case", "case_99"): "case_99",
    ("reserve",): "--fraction, --count and --case",
    ("import", "images", "nowhere"): "nowhere",
    ("import", "images", ".", "--pattern", "x.nii.gz"): "x.nii.gz",
    ("import", "masks", "spleen", "."): "spleen",
    ("import", "labels", ".", "--ids", "two=kidney"): "'two' is no label id",
    ("import", "labels", ".", "--ids", "2"): "'2' has no =",
    ("import", "labels", ".", "--ids", "2=spleen"): "spleen",
    ("import", "structures", ".", "--names", "spleen=spleen"): "spleen",
    ("import", "nnunet", "."): "dataset.json",
    ("init", ".", "--channel", "CT", "--target", "lesion"): "is not empty",
    ("init", "new", "--channel", "CT", "--target", "le sion"): "le sion",
    ("sample", "."): "is not empty",
    ("fuse", "cases"): "cases is not empty",
}


@pytest.mark.parametrize("arguments", ERRORS, ids=" ".join)
def test_an_error_is_one_sentence_and_its_remedy(
    backsplit: Backsplit, project: Path, arguments: tuple[str, ...]
) -> None:
    before = sorted(path for path in project.rglob("*") if ".lock" not in path.name)
    code, out, err = backsplit(*arguments)
    assert code == 1, (out, err)
    assert "Traceback" not in err
    problem, *remedy = err.splitlines()
    assert re.search(ERRORS[arguments], problem), err
    assert problem.startswith("Error: ")
    assert problem.endswith((".", ".'"))
    assert len(remedy) == 1, err
    assert out == ""
    assert sorted(path for path in project.rglob("*") if ".lock" not in path.name) == before


ON_A_PROJECT = (
    "check", "train", "plan", "predict 1", "fuse x", "reserve --count 1", "jobs list", "jobs log 1",
    "compare a=1 b=2", "import masks lesion .", "plan --adopt model",
)  # fmt: skip


@pytest.mark.parametrize("command", ON_A_PROJECT)
def test_a_missing_project_is_named(
    backsplit: Backsplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    code, out, err = backsplit(*command.split(), "--project", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"Error: .*/nowhere is no project\.\nChoose a folder with .*\n", err)
    assert not (tmp_path / "nowhere").exists()


def test_a_project_held_by_another_process(backsplit: Backsplit, project: Path) -> None:
    code = (
        "import sys; from napari_backsplit.backend.project import Project;"
        "p = Project.open(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(project)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        refused = backsplit("reserve", "--count", 1)
        reads = backsplit("fuse", "maps", "--json")
        assert holder.stdin
        holder.stdin.close()
    assert refused.code == 1
    assert f"is open for writing in process {holder.pid} on " in refused.err
    assert reads.code == 0


def test_a_project_of_a_newer_format(backsplit: Backsplit, project: Path) -> None:
    content = json.loads((project / "project.json").read_text())
    content["format_version"] = 99
    (project / "project.json").write_text(json.dumps(content))
    code, _, err = backsplit("check")
    assert code == 1
    assert err == "Error: The project has format 99; this version reads up to 2.\n" + UPDATE


def test_a_job_of_a_newer_format(backsplit: Backsplit, project: Path) -> None:
    job = submit(project, "plan", {}, start=False)
    content = json.loads((job.folder / "job.json").read_text())
    (job.folder / "job.json").write_text(json.dumps({**content, "format_version": 99}))
    code, _, err = backsplit("jobs", "list")
    assert code == 1
    assert "has format 99, newer than" in err


def test_a_failed_job_says_why_and_how_to_go_on(backsplit: Backsplit, project: Path) -> None:
    code, out, err = backsplit("plan", "--folds", "9")
    assert code == 1
    assert out == "0001-plan: plan own\n"
    assert "0001-plan FAILED: " in err
    assert "9 folds" in err
    assert "backsplit jobs resume 0001-plan" in err
    assert "Traceback" not in err


def test_a_run_without_its_plan_set_is_refused_before_it_is_a_job(
    backsplit: Backsplit, project: Path
) -> None:
    code, _, err = backsplit("train", "--arm", "binary", "--plan-set", "other")
    assert code == 1
    assert "The project has no plan set 'other' (it has: none)." in err
    assert not (project / "jobs").exists()


def test_a_job_of_another_task_is_no_model(backsplit: Backsplit, project: Path) -> None:
    submit(project, "plan", {}, start=False)
    assert "Job 0001-plan is no training." in backsplit("predict", "1").err
    assert "Job 0001-plan is no predict job." in backsplit("compare", "a=1", "b=1").err
    code, _, err = backsplit("jobs", "continue", "1")
    assert code == 0, err


# ---------------------------------------------------------------------- what the commands do


def test_sample(backsplit: Backsplit, tmp_path: Path) -> None:
    answer = backsplit("sample", tmp_path / "s", "--train", 2, "--test", 1, "--seed", 5)
    assert answer.code == 0
    assert answer.out.endswith("s: 3 synthetic cases, 1 of them held out.\n")
    with Project.open(tmp_path / "s", read_only=True) as made:
        assert made.test_cases() == ("case_003",)


def test_init_and_the_four_imports(backsplit: Backsplit, empty: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for seed, case in enumerate("abc"):
        image(source / "ct" / f"{case}.nii.gz", seed)
        mask(source / "lesion" / f"{case}.nii.gz", *([1, 1] if case != "c" else []))
    mask(source / "maps" / "a.nii.gz", 2, 3, 9)
    mask(source / "organs" / "b" / "kidney_left.nii.gz", 1)
    mask(source / "organs" / "b" / "kidney_right.nii.gz", 0, 1)

    added = backsplit("import", "images", source / "ct", "--json")
    assert added.code == 0
    assert json.loads(added.out)["added"] == ["case_001", "case_002", "case_003"]
    targets = backsplit("import", "masks", "lesion", source / "lesion")
    assert (targets.code, targets.out) == (0, "0 case(s) and 3 mask(s) added.\n")
    refused = backsplit("import", "labels", source / "maps", "--ids", "2=kidney,3=liver")
    assert refused.code == 1
    assert "9" in refused.err
    maps = ("import", "labels", source / "maps", "--ids", "2=kidney,3=liver", "--ignore-others")
    assert json.loads(backsplit(*maps, "--json").out)["masks"] == {"case_001": ["kidney", "liver"]}
    names = "kidney_left=kidney,kidney_right=kidney"
    assert backsplit("import", "structures", source / "organs", "--names", names).code == 0

    with Project.open(empty, read_only=True) as project:
        assert project.schema.support_names == ("kidney", "liver")
        assert [int(project.masks(c)["lesion"].sum()) for c in project.case_ids()] == [2, 2, 0]
        assert project.masks("case_001")["liver"].flat[1]
        assert project.masks("case_002")["kidney"].sum() == 2
        assert set(project.masks("case_003")) == {"lesion"}


def test_a_second_import_replaces_only_when_asked(
    backsplit: Backsplit, empty: Path, tmp_path: Path
) -> None:
    image(tmp_path / "ct" / "a.nii.gz", 0)
    mask(tmp_path / "lesion" / "a.nii.gz", 1)
    assert backsplit("import", "images", tmp_path / "ct").code == 0
    assert backsplit("import", "masks", "lesion", tmp_path / "lesion").code == 0
    again = backsplit("import", "masks", "lesion", tmp_path / "lesion")
    assert again.code == 1
    assert "case_001 has a mask of lesion already" in again.err
    assert backsplit("import", "masks", "lesion", tmp_path / "lesion", "--replace").code == 0


def test_a_bad_file_does_not_keep_the_others_out(
    backsplit: Backsplit, empty: Path, tmp_path: Path
) -> None:
    image(tmp_path / "ct" / "a.nii.gz", 0)
    (tmp_path / "ct" / "b.nii.gz").write_bytes(b"nothing")
    answer = backsplit("import", "images", tmp_path / "ct")
    assert answer.code == 1
    assert answer.out.endswith("1 case(s) and 0 mask(s) added.\n")
    assert str(tmp_path / "ct" / "b.nii.gz") in answer.err


def test_an_nnunet_dataset(backsplit: Backsplit, empty: Path, tmp_path: Path) -> None:
    raw = tmp_path / "Dataset001_X"
    for seed, name in enumerate(("imagesTr/a_0000", "imagesTr/b_0000", "imagesTs/t_0000")):
        image(raw / f"{name}.nii.gz", seed)
    for name in ("a", "b"):
        mask(raw / "labelsTr" / f"{name}.nii.gz", 1, 2)
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "tumour": 1, "organ": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    unnamed = backsplit("import", "nnunet", raw)
    assert unnamed.code == 1
    assert "no structure for the labels 2 ('organ')" in unnamed.err
    labels = ("--label", "tumour=lesion", "--label", "organ=kidney")
    answer = backsplit("import", "nnunet", raw, *labels, "--json")
    assert answer.code == 0
    assert len(json.loads(answer.out)["added"]) == 3
    with Project.open(empty, read_only=True) as project:
        assert project.test_cases() == ("case_003",)
        assert set(project.masks("case_001")) == {"lesion", "kidney"}


def test_a_project_in_the_present_folder_takes_its_name(
    backsplit: Backsplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kidneys").mkdir()
    monkeypatch.chdir(tmp_path / "kidneys")
    assert backsplit("init", ".", "--channel", "CT", "--target", "lesion").code == 0
    with Project.open(Path(), read_only=True) as project:
        assert project.schema.name == "kidneys"


def test_reserve(backsplit: Backsplit, project: Path) -> None:
    answer = backsplit("reserve", "--case", "case_001")
    assert (answer.code, answer.out) == (0, "1 case(s) are held out: case_001.\n")


def test_fuse(backsplit: Backsplit, project: Path) -> None:
    answer = backsplit("fuse", "maps", "--json")
    assert answer.code == 0
    result = json.loads(answer.out)
    assert result["labels"] == {"background": 0, "lesion": 1, "kidney": 2, "liver": 3, "bowel": 4}
    for case, entry in result["cases"].items():
        label_map = read_label_map(project / "maps" / f"{case}.nii.gz").array
        counts = dict(zip(*np.unique(label_map, return_counts=True), strict=True))
        for name, voxels in entry["voxels"].items():
            assert counts.get(result["labels"][name], 0) == voxels


def test_check(backsplit: Backsplit, project: Path) -> None:
    answer = backsplit("check", "--json")
    findings = json.loads(answer.out)
    errors = [f for f in findings if f["severity"] == "error"]
    assert answer.code == (1 if errors else 0)
    assert all(set(f) == {"severity", "structure", "code", "case", "message"} for f in findings)
    (project / "cases" / "case_001" / "target.nii.gz").exists()
    shown = backsplit("check")
    assert shown.out.endswith(f"3 case(s), {len(findings)} finding(s).\n")


def test_jobs(backsplit: Backsplit, project: Path) -> None:
    job = submit(project, "loop", {}, "turn", env=TINY, command=COMMAND)
    until(lambda: job.events()[0])
    (listed,) = json.loads(backsplit("jobs", "list", "--json").out)
    assert (listed["job"], listed["title"], listed["state"]) == (job.id, "turn", "RUNNING")
    assert backsplit("jobs", "pause", 1).code == 0
    until(lambda: job.status().state == "PAUSED")
    assert backsplit("jobs", "continue", job.id).code == 0
    until(lambda: job.status().state == "RUNNING")
    running = backsplit("jobs", "resume", "1")
    assert running.code == 1
    assert "RUNNING cannot be resumed" in running.err
    assert backsplit("jobs", "cancel", "1").out == f"{job.id} CANCELLED\n"
    assert backsplit("jobs", "log", "1", "--lines", 2).code == 0
    followed = backsplit("jobs", "follow", "1")
    assert followed.code == 1
    assert f"{job.id} CANCELLED: The job was cancelled." in followed.err
