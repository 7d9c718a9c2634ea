"""What this machine can do: device, number formats, memory, disk; and the settings that make a CPU fast.

Nothing here is decided at import; `inspect_machine()` looks once and is cached.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError

if TYPE_CHECKING:
    import torch

GIGABYTE = 1024**3


@dataclass(frozen=True, slots=True)
class Machine:
    """The device that computes, and what it holds. Memory in bytes."""

    device: str
    name: str
    memory: int
    cores: int
    native_bfloat16: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        precision = "bfloat16" if self.native_bfloat16 else "float32"
        return f"{self.name}, {self.cores} cores, {self.memory / GIGABYTE:.0f} GB, {precision}"


@functools.cache
def inspect_machine() -> Machine:
    """Find the device: the first CUDA GPU, else the CPU."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Machine("cuda", properties.name, properties.total_memory, _cores(), torch.cuda.is_bf16_supported(False))
    return processor()


def processor() -> Machine:
    """Return the processor, whether or not there is a GPU beside it."""
    return Machine("cpu", _cpu_name(), _ram(), _cores(), _cpu_has_bfloat16())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_capabilities() -> dict[str, Any]:
    import torch

    # torch.cpu.get_capabilities came with torch 2.11; without it the CPU counts as a plain one
    return dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}


def _cpu_name() -> str:
    return str(_cpu_capabilities().get("cpu_name") or platform.processor() or platform.machine())


def _ram() -> int:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 8 * GIGABYTE


def _cpu_has_bfloat16() -> bool:
    """Whether bfloat16 products are native; emulated ones are slower than float32."""
    capabilities = _cpu_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def resolve_dtype(name: str, machine: Machine) -> torch.dtype:
    """Turn a recipe's dtype into torch's; `auto` is bfloat16 where the machine computes it natively."""
    import torch

    if name == "auto":
        return torch.bfloat16 if machine.native_bfloat16 else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed memory instead of returning each large tensor to the system.

    A CPU tensor above 128 KB is otherwise a fresh mmap whose pages fault in one by one: measured on two cores with
    SmolLM2-135M in bfloat16, prefill of 64 prompts ran at 610 tokens/s with the default and 1232 without mmap, a
    training step at 522 and 570. Returns whether the setting was taken (Linux with glibc only).
    """
    if not _has_glibc():
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX of malloc.h
    libc = ctypes.CDLL(None)
    settings = ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 64 * 1024 * 1024))
    return all([libc.mallopt(which, value) == 1 for which, value in settings])


def release_freed_memory() -> None:
    """Return to the system what `keep_freed_memory` keeps; for the end of a batch of answers or of a stage.

    Caches that grow by a token a step leave gaps that nothing fits any more: a quickstart held 13 GB at its end without
    this. Does nothing where the C library is not glibc.
    """
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def _has_glibc() -> bool:
    # libc_ver reads the interpreter's file each time
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def cache_folder() -> Path:
    """Return where finetune keeps what it can make again: `FINETUNE_CACHE`, else the user's cache folder."""
    own = os.environ.get("FINETUNE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune"


def require_disk(folder: Path, needed: int, purpose: str) -> None:
    """Refuse early when `folder`'s disk has less than `needed` bytes free.

    Raises:
        FinetuneError: with both figures.
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise FinetuneError(
            f"{purpose} needs {needed / GIGABYTE:.2f} GB of disk, {free / GIGABYTE:.2f} GB are free",
            where=str(folder),
            fix="free some space, or set run.folder to another disk",
        )


def reset_peak_memory() -> bool:
    """Let `peak_memory` begin anew with what is held now; tells whether this system can (Linux, or a GPU)."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        # 5 sets the peak to the present resident set (proc(5))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory() -> int:
    """Most memory the device has held so far, in bytes: GPU allocations, or this process's resident set."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss survives exec: a process started by a large one would begin with that one's peak (getrusage(2))
        (line,) = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
