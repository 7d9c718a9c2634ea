"""The files that a run ships, each made from the trained result, proven against it and scored on the run's own task.

`ship(work, sections)` makes them, `verify(work, path)` proves one that is there already.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from finetune import results
from finetune.errors import FinetuneError
from finetune.exporting import (
    Trained,
    Verification,
    conversations_of,
    export_gguf,
    export_merged,
    export_ollama,
    prove_file,
    prove_folder,
    prove_modelfile,
)
from finetune.exporting.bounds import FOLDERS
from finetune.exporting.llama_file import Asked
from finetune.hardware import release_freed_memory
from finetune.recipe import Export, GgufExport, MergedExport, OllamaExport
from finetune.runtimes import LlamaCppRuntime
from finetune.session import Run

Tell = Callable[[str], None]

# Real prompts that are compared token by token, which takes no model
CONVERSATIONS = 64


def ship(work: Run, sections: Sequence[Export], *, tell: Tell) -> dict[str, Verification]:
    """Write and prove files; returns their proofs by name.

    Raises:
        FinetuneError: a file cannot be made or written; nothing half-written is left.
    """
    trained = trained_of(work)
    proofs: dict[str, Verification] = {}
    with ExitStack() as later:
        sources: list[Path] = []
        for section in sections:
            name = export_name(section)
            if isinstance(section, MergedExport):
                proofs[name] = export_merged(section, trained, work.folder.exports / name)
            else:
                if not sources:
                    sources.append(later.enter_context(_merged_source(work, trained)))
                proofs[name] = _llama_file(work, section, trained, sources[0], tell)
            release_freed_memory()
            tell(f"export   {proofs[name].path} {proofs[name].sentence()}")
    return proofs


def export_name(section: Export) -> str:
    """Return the name of a file or folder under `exports/`."""
    if isinstance(section, MergedExport):
        return section.kind if section.dtype == "auto" else f"{section.kind}-{section.dtype}"
    if isinstance(section, GgufExport):
        return f"model-{section.quantization}.gguf"
    return f"ollama-{section.quantization}"


def trained_of(work: Run) -> Trained:
    """Return what a run trained, with the real rows to compare files on."""
    items = work.data.test
    return Trained(
        work.recipe,
        base=work.base,
        folder=work.folder.trained(),
        tokenizer=work.tokenizer,
        rows=results.proof_rows(work.data),
        conversations=conversations_of(items, work.tokenizer, CONVERSATIONS),
        stop=work.data.stop,
        machine=work.machine,
    )


@contextmanager
def _merged_source(work: Run, trained: Trained) -> Iterator[Path]:
    """Yield the merged model in float32, proven, from which GGUF files are made; it does not stay."""
    folder = work.folder.exports / ".source"
    try:
        proof = export_merged(MergedExport(dtype="float32"), trained, folder)
        if not proof.passed:
            raise FinetuneError(f"the merged model {proof.sentence()}, so no GGUF file is made of it", where="export")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _llama_file(
    work: Run, section: GgufExport | OllamaExport, trained: Trained, source: Path, tell: Tell
) -> Verification:
    target = work.folder.exports / export_name(section)
    file = target if isinstance(section, GgufExport) else target.with_name(f".{target.name}.gguf")
    try:
        proof = export_gguf(section, trained, source=source, target=file)
        proof = _with_task(work, proof, trained, section.task_items, tell)
        if isinstance(section, OllamaExport):
            proof = export_ollama(section, trained, file=proof, target=target)
    finally:
        if file != target:
            file.unlink(missing_ok=True)
    return proof


def _with_task(work: Run, proof: Verification, trained: Trained, at_most: int | None, tell: Tell) -> Verification:
    """Let a file answer the test items that the tuned model answered; a file that is worse does not pass."""
    from finetune.evaluation import score_file

    answers = work.folder.evaluation / "answers.jsonl"
    if at_most == 0:
        return proof
    if not answers.exists():
        tell("export   the run has not been evaluated, so the file's task score is not measured")
        return proof
    records: list[dict[str, Any]] = [json.loads(line) for line in answers.read_text("utf-8").split("\n") if line]
    with LlamaCppRuntime(Path(proof.path), trained.tokenizer, name=Path(proof.path).name) as shipped:
        task = score_file(
            work.held_out,
            shipped,
            records,
            confidence=work.recipe.evaluate.confidence,
            seed=work.recipe.run.seed,
            at_most=at_most,
        )
    worse = (f"the file is worse at the task than the tuned model: {task['sentence']}",)
    return proof.knowing(task=task, problems=worse if task["verdict"] == "worse" else ())


def verify(work: Run, path: Path) -> Verification:
    """Prove a file that is there already: a GGUF file, a Modelfile with one beside it, or a model folder.

    Raises:
        FinetuneError: there is no such file, or it is none of these.
    """
    trained = trained_of(work)
    if path.name == "Modelfile" or (path / "Modelfile").is_file():
        return prove_modelfile(path if path.name == "Modelfile" else path / "Modelfile", trained, Asked())
    if path.is_file() and path.suffix.lower() == ".gguf":
        return prove_file(path, trained, Asked())
    if (path / "config.json").is_file():
        usual = FOLDERS[_dtype_of(path)]
        return prove_folder(path, trained, (usual.max_kl, usual.min_top1))
    raise FinetuneError(
        "this is no exported file" if path.exists() else "there is no such file",
        where=str(path),
        fix="give a .gguf file, a Modelfile or a model folder",
    )


def _dtype_of(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        dtype = str(config.get("dtype") or config.get("torch_dtype"))
    except (OSError, ValueError, AttributeError) as error:
        raise FinetuneError(f"config.json cannot be read: {error}", where=str(folder)) from error
    return dtype if dtype in FOLDERS else "bfloat16"
