from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from napari_backsplit.backend.cluster_consent import require_consent
from napari_backsplit.backend.cluster_settings import FOLDER, read_settings
from napari_backsplit.backend.jobs import Job, queued, submit
from napari_backsplit.backend.jobs.order import changing
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.consent import ConsentMissing
from napari_backsplit.cli import main
from tests.cli_support import Answer, Backsplit


@pytest.fixture
def backsplit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Backsplit:
    """Run the command in a project, with settings of its own."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv(FOLDER, str(tmp_path / "settings"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["backsplit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Answer(int(ended.value.code or 0), *capsys.readouterr())

    run("init", tmp_path / "study", "--channel", "CT", "--target", "lesion")
    monkeypatch.chdir(tmp_path / "study")
    return run


def job(**how: object) -> Job:
    return submit(Path(), "plan", {}, "plan", start=False, **how)


def test_settings_are_set_and_shown(backsplit):
    assert backsplit("cluster", "set", "--address", "tls://gpu:8786").code == 0
    assert backsplit("cluster", "set", "--allow-unencrypted", "true").code == 0
    assert "tls://gpu:8786" in backsplit("cluster", "show").out
    shown = json.loads(backsplit("cluster", "show", "--json").out)
    assert (shown["address"], shown["allow_unencrypted"]) == ("tls://gpu:8786", True)
    assert backsplit("cluster", "set", "--address", "").code == 0
    assert read_settings().address == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [((), "nothing to set"), (("--address", "x:y"), "--address"), (("--path-map", "a"), "HERE")],
)
def test_settings_that_do_not_fit(backsplit, options, said):
    answer = backsplit("cluster", "set", *options)
    assert answer.code == 1
    assert said in answer.err or options[0] in answer.err
    assert read_settings().address == ""


def test_a_test_says_what_is_wrong(backsplit):
    assert "No scheduler is set" in backsplit("cluster", "test").err
    assert "not protected" in backsplit("cluster", "test", "10.1.2.3:8786").err
    assert "is no address" in backsplit("cluster", "test", "nonsense").err


def test_a_project_agrees_once(backsplit):
    with Project.open(Path(), read_only=True) as project:
        require_consent(project, "")
        with pytest.raises(ConsentMissing, match="tcp://gpu:8786") as told:
            require_consent(project, "gpu:8786")
    assert backsplit(*told.value.remedy.partition("backsplit ")[2].split()).code == 0
    with Project.open(Path(), read_only=True) as project:
        require_consent(project, "gpu:8786")
        with pytest.raises(ConsentMissing):
            require_consent(project, "other:8786")


def test_a_chain_is_exported(backsplit, tmp_path):
    plan = job()
    jobs = [plan, *(job(needs=(plan.id,), chain=plan.id, device="cuda") for _ in range(2))]
    with changing(Path("jobs").resolve()) as order:
        order.extend(found.id for found in jobs)
    script = tmp_path / "runs.sh"
    answer = backsplit("jobs", "export", "--sbatch", script, "1", "--cpus", "3")
    assert answer.code == 0
    assert f"Submit the 3 jobs on the cluster with: bash {tmp_path}/runs.submit.sh" in answer.out
    assert "--cpus-per-task=3" in script.read_text()
    subprocess.run(["bash", "-n", script, tmp_path / "runs.submit.sh"], check=True)
    assert queued(Path()) == []
    alone = backsplit("jobs", "export", "--sbatch", tmp_path / "one.sh", jobs[1].id, "--only")
    assert alone.code == 1
    assert f"needs {plan.id}, which has not succeeded" in alone.err
