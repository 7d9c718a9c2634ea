"""GGUF files of a run: `export_gguf` writes one and `prove_file` compares it, in llama.cpp, with what was trained."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import FinetuneError, missing_extra
from finetune.exporting.bounds import file_bound
from finetune.exporting.gguf import convert
from finetune.exporting.gguf.families import family_of
from finetune.exporting.prompts import Parity, begin_of_text, compare_prompts, missing_stops
from finetune.exporting.trained import Trained
from finetune.exporting.verify import Verification, verify
from finetune.models import Base
from finetune.models.base import load_skeleton
from finetune.recipe.schema import GgufExport, OllamaExport
from finetune.runtimes import LlamaCppRuntime
from finetune.runtimes.llama_cpp import rendered, require_llama_cpp

# What is said of a file that carries no template: programs would guess one
NO_TEMPLATE = "the file holds no chat template, so programs would guess one"


@dataclass(frozen=True, slots=True)
class Asked:
    """Bounds that a recipe set, or None for those of the table."""

    max_kl: float | None = None
    min_top1: float | None = None

    @staticmethod
    def by(section: GgufExport | OllamaExport) -> Asked:
        return Asked(section.max_kl, section.min_top1)


def require_convertible(base: Base) -> None:
    """Refuse a base that cannot become a GGUF file here, before anything is trained for it.

    Raises:
        FinetuneError: packages that are missing, or an architecture that llama.cpp does not compute.
    """
    require_llama_cpp("exporting to GGUF")
    if importlib.util.find_spec("gguf") is None:
        raise missing_extra("gguf", "gguf", "exporting to GGUF")
    family_of(load_skeleton(base).config, where=base.where)


def export_gguf(section: GgufExport | OllamaExport, trained: Trained, *, source: Path, target: Path) -> Verification:
    """Write one GGUF file and prove it.

    Args:
        section: number format and bounds.
        trained: what was trained.
        source: the merged model in float32.
        target: the file to write.

    Raises:
        FinetuneError: it cannot be converted or written, or llama.cpp cannot load it.
    """
    written = convert(source, target, kind=section.quantization)
    proof = prove_file(target, trained, Asked.by(section), quantization=section.quantization)
    counts = ", ".join(f"{count} {name}" for name, count in written.tensors.items())
    made = f"{written.bits_per_weight:.2f} bits a weight ({counts})"
    said = "; ".join(filter(None, (made, *written.notes, proof.note)))
    return proof.knowing(bits_per_weight=written.bits_per_weight, note=said)


def prove_file(path: Path, trained: Trained, asked: Asked, *, quantization: str | None = None) -> Verification:
    """Compare a GGUF file with what was trained: prompts, predictions, answers, and what it takes to run it.

    Args:
        path: the file.
        trained: what was trained.
        asked: bounds; those of the table where it says none.
        quantization: name of the number format; unset takes what the file says.

    Raises:
        FinetuneError: llama.cpp is not installed, cannot load the file, or the file predicts NaN.
    """
    seen = trained.observed
    with LlamaCppRuntime(path, trained.tokenizer, name="llama.cpp") as shipped:
        usual = file_bound(quantization or shipped.facts.quantization)
        _require_vocabulary(shipped, trained)
        # One answer, as a user would ask for it: reading every position's predictions takes memory of its own
        shipped.generate([trained.rows[0].prompt], max_new_tokens=8, stop=trained.stop)
        peak_memory = shipped.peak_memory()
        proof = verify(
            seen,
            shipped,
            path=str(path),
            stop=trained.stop,
            max_kl=asked.max_kl or usual.max_kl,
            min_top1=usual.min_top1 if asked.min_top1 is None else asked.min_top1,
        )
        parity = file_parity(shipped, trained)
        return proof.knowing(
            prompt_parity=parity.share,
            conversations=parity.conversations,
            problems=(*parity.problems, *missing_stops(trained.ends, shipped.facts.stops, trained.tokenizer)),
            size=path.stat().st_size,
            bits_per_weight=shipped.facts.bits_per_weight,
            load_seconds=shipped.facts.load_seconds,
            tokens_per_second=shipped.tokens_per_second,
            peak_memory=peak_memory,
        )


def file_parity(shipped: LlamaCppRuntime, trained: Trained) -> Parity:
    """Compare the prompts that llama.cpp makes, by the template and the tokenizer in the file, with those of training.

    Raises:
        FinetuneError: llama.cpp crashes on the template.
    """
    conversations = trained.conversations
    asked = [one.messages for one in conversations if one.messages]
    if asked and not shipped.facts.has_template:
        return Parity(0.0, len(conversations), (NO_TEMPLATE,))
    told = iter(rendered(shipped.path, asked) if asked else ())
    texts = [next(told) if one.messages else one.text for one in conversations]
    ids = shipped.tokenise([text or "" for text in texts])
    bos = begin_of_text(trained.tokenizer)
    return compare_prompts(conversations, texts, ids, bos=bos, who="the file's template")


def _require_vocabulary(shipped: LlamaCppRuntime, trained: Trained) -> None:
    largest = max(max(row.whole) for row in trained.rows)
    if shipped.facts.vocabulary <= largest:
        raise FinetuneError(
            f"this file has {shipped.facts.vocabulary:,} tokens and the run's rows use token {largest:,}: it is of "
            "another model",
            where=str(shipped.path),
            fix="give a file that was exported from this run",
        )
