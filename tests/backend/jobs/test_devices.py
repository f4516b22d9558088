from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.jobs import devices

TWO = """0, GPU-aa11, NVIDIA GeForce RTX 2080 Ti, 73, 6210, 11264
1, GPU-bb22, NVIDIA A100, 0, 4, 40960
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program named nvidia-smi, of a given text, into the path of programs."""

    def put(text: str) -> Path:
        file = tmp_path / "bin" / "nvidia-smi"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{file.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return file

    return put


def test_the_last_device_is_the_cpu_with_this_machines_memory(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (cpu,) = [d for d in devices.devices() if d.name == "cpu"]
    assert devices.devices()[-1] == cpu
    assert 1 << 28 < cpu.total_bytes < 1 << 46
    assert "core" in cpu.title


def test_gpus_come_first_and_are_named_as_torch_does(tool):
    tool(f"cat <<'END'\n{TWO}END")
    first, second, *_ = devices.devices()
    assert (first.name, first.title) == ("cuda:0", "NVIDIA GeForce RTX 2080 Ti")
    assert (second.name, second.total_bytes) == ("cuda:1", 40960 << 20)


def test_the_gpus_are_those_that_cuda_sees(tool, monkeypatch):
    tool(f"cat <<'END'\n{TWO}END")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    first, *rest = devices.devices()
    assert (first.name, first.title) == ("cuda:0", "NVIDIA A100")
    assert [d.name for d in rest] == ["cpu"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("", ""), ("1,0", "10"), ("GPU-bb", "1"), ("0,7,1", "0"), ("-1", ""), ("NoDevFiles", "")],
)
def test_a_list_ends_at_its_first_unknown_gpu(wanted, found):
    cards = devices.parse_cards(TWO)
    seen = devices.visible(cards, {"CUDA_VISIBLE_DEVICES": wanted})
    assert "".join(card.index for card in seen) == found


@pytest.mark.parametrize("text", ["exit 9", "echo No devices were found", "kill -9 $$"])
def test_a_tool_that_fails_means_no_gpu(tool, text):
    tool(text)
    assert devices.cards_now() == ()


def test_a_tool_that_hangs_is_waited_for_as_long_as_told(tool):
    tool("exec sleep 60")
    begun = time.monotonic()
    assert devices.cards_now(limit_s=0.3) == ()
    assert time.monotonic() - begun < 5


def test_a_gpu_that_does_not_tell_is_kept():
    (card,) = devices.parse_cards("0, GPU-1, NVIDIA H100, [N/A], [N/A], 81559\n")
    assert card.utilisation is None
    assert card.used_bytes is None
    assert card.total_bytes == 81559 << 20


@given(st.text())
def test_whatever_the_tool_prints_is_read(text):
    assert all(isinstance(card, devices.Card) for card in devices.parse_cards(text))


def test_a_lower_limit_of_the_control_group_counts(tmp_path, monkeypatch):
    inner = tmp_path / "groups" / "user" / "job"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text(f"{3 << 30}\n")
    (inner / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cgroup").write_text("0::/user/job\n")
    monkeypatch.setattr(devices, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(devices, "_OWN_CGROUP", tmp_path / "cgroup")
    assert devices.memory_bytes() == 3 << 30
    assert devices.cores() <= 2


def test_no_heavy_library_is_loaded():
    code = (
        "import sys; from napari_backsplit.backend.jobs.devices import devices; devices();"
        "print([m for m in ('torch', 'nnunetv2', 'qtpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
