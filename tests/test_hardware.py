"""What the machine is said to be, and what is refused for want of disk."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finetune.errors import FinetuneError
from finetune.hardware import (
    GIGABYTE,
    Machine,
    inspect_machine,
    keep_freed_memory,
    peak_memory,
    processor,
    require_disk,
    resolve_dtype,
)

REPO = Path(__file__).parents[1]


def machine(native: bool = False) -> Machine:
    return Machine("cpu", "Xeon", 16 * GIGABYTE, 2, native)


def test_this_machine_is_plausible_and_looked_at_once() -> None:
    found = inspect_machine()
    assert found.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert found.name
    assert found.memory > GIGABYTE // 4
    assert found.cores >= 1
    assert inspect_machine() is found


def test_a_machine_reads_well() -> None:
    assert str(machine()) == "Xeon, 2 cores, 16 GB, float32"
    assert str(machine(native=True)) == "Xeon, 2 cores, 16 GB, bfloat16"
    assert machine().as_dict() == {
        "device": "cpu",
        "name": "Xeon",
        "memory": 16 * GIGABYTE,
        "cores": 2,
        "native_bfloat16": False,
    }


@pytest.mark.parametrize("native", [False, True])
def test_dtypes(native: bool) -> None:
    assert resolve_dtype("auto", machine(native)) == (torch.bfloat16 if native else torch.float32)
    for name in ("float32", "bfloat16", "float16"):
        assert resolve_dtype(name, machine(native)) == getattr(torch, name)


def test_disk_that_suffices_is_no_fault(tmp_path: Path) -> None:
    require_disk(tmp_path / "not" / "yet" / "there", 1, "the test")
    require_disk(Path("relative/and/not/there"), 1, "the test")


def test_too_little_disk_is_said_with_both_figures(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError) as caught:
        require_disk(tmp_path / "run", 2**60, "checkpoints of this run")
    problem = caught.value.problems[0]
    assert problem.what.startswith("checkpoints of this run needs 1073741824.00 GB of disk, ")
    assert problem.what.endswith(" GB are free")
    assert problem.where == str(tmp_path / "run")
    assert problem.fix == "free some space, or set run.folder to another disk"


def test_freed_memory_is_kept_with_glibc_only() -> None:
    expected = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    assert keep_freed_memory() is expected


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_kept_memory_is_released_when_asked() -> None:
    code = """
import torch
from finetune.hardware import keep_freed_memory, release_freed_memory
def resident():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024
keep_freed_memory()
held = [torch.ones(2**20) for _ in range(64)]
last = torch.ones(2**20)
full = resident()
del held
kept = resident()
release_freed_memory()
print(full, kept, resident())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    full, kept, released = map(int, done.stdout.split())
    # 64 tensors of 4 MiB, below one that stays
    assert full - kept < 32 * 2**20
    assert full - released > 224 * 2**20


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's peak counts allocations, not the resident set")
def test_peak_memory_grows_with_what_is_held() -> None:
    code = (
        "import torch; from finetune.hardware import peak_memory; a = peak_memory(); "
        "held = torch.ones(64 * 2**20); print(a, peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    # 64 Mi floats of four bytes
    assert after - before == pytest.approx(256 * 2**20, rel=0.1)
    assert peak_memory() > 0


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="Linux tells a process's own peak")
def test_peak_memory_begins_anew_when_asked() -> None:
    code = """
import torch
from finetune.hardware import peak_memory, reset_peak_memory
held = torch.ones(64 * 2**20)
before = peak_memory()
del held
known = reset_peak_memory()
after = peak_memory()
held = torch.ones(32 * 2**20)
print(int(known), before, after, peak_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    known, before, after, again = map(int, done.stdout.split())
    if known:
        assert before - after == pytest.approx(256 * 2**20, rel=0.1)
        assert again - after == pytest.approx(128 * 2**20, rel=0.1)
    else:
        assert before == after


def test_the_processor_is_known_beside_a_gpu() -> None:
    found = processor()
    assert found.device == "cpu"
    assert found.name
    assert found.cores == inspect_machine().cores
    if not torch.cuda.is_available():
        assert found == inspect_machine()
