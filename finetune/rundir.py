"""The run folder: one place for all that a run leaves behind, written so that no half file ever has a final name.

runs/NAME/recipe.yaml manifest.json data/ checkpoints/ metrics.jsonl adapter/|weights/ evaluation/ exports/
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetune.errors import FinetuneError

MANIFEST = "manifest.json"
Stage = Literal["data", "train", "evaluate", "export", "report"]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(handle)


def _digest(handle: Any) -> str:
    # hashlib.file_digest came with Python 3.11
    digest = hashlib.sha256()
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file aside, flush it to disk and rename it into place.

    Raises:
        FinetuneError: no permission, no space, or a parent that is a file.
    """
    with staged_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON (no NaN), indented, by `write_text`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, values: Iterator[Any] | list[Any]) -> None:
    """Write one strict JSON value a line, by `write_text`."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values))


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; flush and rename it into place when the block ends well.

    A folder that was at `target` is replaced only then. On an error nothing is left behind.

    Raises:
        FinetuneError: no permission, no space.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield aside
        flush_folder(aside)
        aside.chmod(0o755)
        if target.exists():
            _replace_folder(target, aside)
        else:
            os.replace(aside, target)
        _flush(target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield the path of an empty file beside `target`; flush and rename it into place when the block ends well.

    A file that was at `target` is replaced only then. On an error nothing is left behind.

    Raises:
        FinetuneError: no permission, no space.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise _cannot_write(target, error) from error
    os.close(descriptor)
    aside = Path(name)
    try:
        yield aside
        _flush(aside)
        aside.chmod(0o644)
        os.replace(aside, target)
        _flush(target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        aside.unlink(missing_ok=True)


def _replace_folder(target: Path, new: Path) -> None:
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
    os.replace(target, old / "replaced")
    try:
        os.replace(new, target)
    except OSError:
        os.replace(old / "replaced", target)
        old.rmdir()
        raise
    shutil.rmtree(old)


def flush_folder(folder: Path) -> None:
    """Make sure that every file of a folder has reached the disk."""
    for path in sorted(folder.rglob("*")):
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> FinetuneError:
    return FinetuneError(
        f"cannot write {path.name!r}: {error.strerror or error}",
        where=str(path.parent),
        fix="check permissions and free space there, or set run.folder to another place",
    )


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run folder that exists. Paths are attributes; state is in `manifest.json`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / MANIFEST).exists()

    def has_result(self) -> bool:
        """Whether the trained result is there."""
        return any((self.path / name).is_dir() for name in ("adapter", "weights"))

    def is_untrained(self) -> bool:
        """Whether nothing has been learned here: no checkpoint, no result."""
        return not self.has_result() and not any(self.checkpoints.glob("step-*"))

    def trained(self) -> Path:
        """Return the folder of the trained result: `adapter/` or `weights/`.

        Raises:
            FinetuneError: the run has not been trained yet.
        """
        for name in ("adapter", "weights"):
            if (self.path / name).is_dir():
                return self.path / name
        raise FinetuneError("this run has no trained model yet", where=str(self.path), fix="finetune train RECIPE")

    def manifest(self) -> dict[str, Any]:
        """Read `manifest.json`.

        Raises:
            FinetuneError: it is missing or damaged.
        """
        path = self.path / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(manifest, dict) or not {"identity", "stages"} <= manifest.keys():
                raise ValueError("it has no identity and stages")
        except (OSError, ValueError) as error:
            raise FinetuneError(
                f"cannot read the run's manifest: {error}", where=str(path), fix="is this the folder of a run?"
            ) from error
        return manifest

    def update(self, **entries: Any) -> None:
        """Set top-level entries of the manifest."""
        write_json(self.path / MANIFEST, {**self.manifest(), **entries})

    def finish(self, stage: Stage, **facts: Any) -> None:
        """Record that a stage is done, with what it found."""
        manifest = self.manifest()
        manifest["stages"][stage] = facts
        write_json(self.path / MANIFEST, manifest)

    def finished(self, stage: Stage) -> dict[str, Any] | None:
        """Return what a finished stage recorded, or None when it is not done."""
        facts: dict[str, Any] | None = self.manifest()["stages"].get(stage)
        return facts


def create_run(path: Path, *, recipe_text: str, identity: Mapping[str, Any]) -> RunFolder:
    """Make a run folder, or take up the one that an earlier call of the same recipe left.

    Args:
        path: where the run lives.
        recipe_text: the resolved recipe, written as `recipe.yaml`.
        identity: all that decides the trained weights; a folder of another identity is refused.

    Raises:
        FinetuneError: the folder belongs to another recipe (each difference named), holds something else, or cannot
            be written.
    """
    folder = RunFolder(path)
    if folder.exists():
        _require_same(folder, identity)
        write_text(folder.recipe, recipe_text)
        return folder
    if path.exists() and not _is_free(path):
        raise FinetuneError(
            "this folder exists and is not a run", where=str(path), fix="give the run another name: --set run.name=NAME"
        )
    # The manifest first: a folder that was killed before it has one holds nothing else, so it can be taken up
    write_json(path / MANIFEST, {"identity": dict(identity), "stages": {}})
    write_text(folder.recipe, recipe_text)
    return folder


def _is_free(path: Path) -> bool:
    """Whether a folder is empty but for a manifest that a kill left half written."""
    return path.is_dir() and all(entry.name.startswith(f".{MANIFEST}.") for entry in path.iterdir())


def open_run(path: str | Path) -> RunFolder:
    """Open an existing run folder.

    Raises:
        FinetuneError: there is none at `path`.
    """
    folder = RunFolder(Path(path))
    if not (folder.path / MANIFEST).is_file():
        raise FinetuneError(
            "there is no run here", where=str(path), fix="give the folder that `finetune run` printed, e.g. runs/NAME"
        )
    return folder


def _require_same(folder: RunFolder, identity: Mapping[str, Any]) -> None:
    before: dict[str, Any] = folder.manifest()["identity"]
    changed = [
        f"{key}: {before.get(key)!r} -> {identity.get(key)!r}"
        for key in sorted({*before, *identity})
        if before.get(key) != identity.get(key)
    ]
    if changed:
        raise FinetuneError(
            "this run folder belongs to another recipe; changed: " + "; ".join(changed),
            where=str(folder.path),
            fix="give the new run its own name: --set run.name=NAME",
        )
