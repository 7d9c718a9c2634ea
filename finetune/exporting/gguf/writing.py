"""Write a GGUF file from a model folder: names and shapes first, then one tensor after the other."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune.errors import FinetuneError, missing_extra
from finetune.exporting.gguf.families import Family, family_of
from finetune.exporting.gguf.mixes import KINDS, Shape, tensor_type
from finetune.exporting.gguf.parameters import rope_tensors, write_parameters
from finetune.exporting.gguf.quantise import CHUNK, encode_rows, require_quantiser, row_bytes
from finetune.exporting.gguf.vocabulary import Vocabulary, read_vocabulary, write_vocabulary
from finetune.exporting.gguf.weights import Weights
from finetune.hardware import require_disk
from finetune.rundir import staged_file


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """A written file: size in bytes, true bits per weight over all tensors, `tensors` counted by number format.

    `notes` say where llama.cpp will differ from the model, in words.
    """

    path: Path
    kind: str
    size: int
    bits_per_weight: float
    tensors: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file: its name and shape there, its number format, and how its rows are read in order."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    read: Callable[[], Iterator[torch.Tensor]]

    @property
    def size(self) -> int:
        return row_bytes(self.type_name, self.shape[-1]) * prod(self.shape[:-1])


def convert(folder: Path, target: Path, *, kind: str, name: str = "") -> GgufFile:
    """Turn a model folder into a GGUF file for llama.cpp.

    Tensors are read, converted and written one after the other, large ones in parts, so that memory does not grow
    with the model.

    Args:
        folder: safetensors, config.json and tokenizer as `save_pretrained` writes them.
        target: the file to write, whole or not at all.
        kind: one of `KINDS`.
        name: the model's name in the file; the file's own without it.

    Raises:
        FinetuneError: unknown kind, an architecture, tokenizer or setting that llama.cpp does not compute, damaged
            weights, a number too large for the format, or no space.
    """
    require_gguf()
    require_quantiser(kind)
    config = read_config(folder)
    family = family_of(config, where=str(folder))
    weights = Weights(folder)
    tensors = _plan(weights, config, family, kind)
    stop = _stop_tokens(folder, config)
    vocabulary = read_vocabulary(folder, size=config.vocab_size, stop=stop, bos=_one(config.bos_token_id))
    require_disk(target.parent, sum(tensor.size for tensor in tensors) + 32 * config.vocab_size, f"the {kind} file")
    with staged_file(target) as aside:
        writer = new_writer(aside, family.arch)
        notes = _write_metadata(writer, config, family, kind, _named(name or target.stem, vocabulary))
        write_vocabulary(writer, vocabulary)
        write_tensors(writer, tensors, kind, where=str(folder))
        size = aside.stat().st_size
    return summary(target, kind, size, tensors, (*notes, *vocabulary.notes, *_fallen_back(tensors, kind)))


def summary(path: Path, kind: str, size: int, tensors: list[Tensor], notes: tuple[str, ...] = ()) -> GgufFile:
    """Say what a written file holds."""
    numbers = sum(prod(tensor.shape) for tensor in tensors)
    return GgufFile(
        path=path,
        kind=kind,
        size=size,
        bits_per_weight=8 * sum(tensor.size for tensor in tensors) / numbers,
        tensors=dict(Counter(tensor.type_name for tensor in tensors).most_common()),
        notes=notes,
    )


def require_gguf() -> None:
    """Refuse to write where gguf is not installed.

    Raises:
        FinetuneError: with the extra to install.
    """
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise missing_extra("gguf", "gguf", "writing a GGUF file") from None


def new_writer(path: Path, arch: str) -> Any:
    """Return gguf's `GGUFWriter` of a file."""
    import gguf

    return gguf.GGUFWriter(path, arch)


def read_config(folder: Path) -> Any:
    """Return transformers' configuration of a model folder.

    Raises:
        FinetuneError: there is none that can be read.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise FinetuneError(
            f"the model's configuration cannot be read: {str(error).splitlines()[0]}",
            where=str(folder),
            fix="give a folder written by save_pretrained",
        ) from error


def _stop_tokens(folder: Path, config: Any) -> list[int]:
    """Return the tokens that end an answer, as generation_config.json says, else the configuration."""
    file = folder / "generation_config.json"
    found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    found = config.eos_token_id if found is None else found
    return [found] if isinstance(found, int) else list(found or ())


def _one(token: Any) -> int | None:
    return token if isinstance(token, int) else None


# ------------------------------------------------------------------------------------------------------ metadata


def _write_metadata(writer: Any, config: Any, family: Family, kind: str, name: str) -> list[str]:
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(KINDS[kind].file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    return write_parameters(writer, config, family)


def _named(name: str, vocabulary: Vocabulary) -> str:
    """Return a name that makes llama.cpp treat the spaces after special tokens as the tokenizer does.

    A model called Phi-3 loses them after its special tokens, and must have these four (llama-vocab.cpp).
    """
    needed = {"</s>", "<unk>", "<s>", "<|endoftext|>"}
    if vocabulary.strips_right and needed <= set(vocabulary.tokens):
        return name if "phi-3" in name.lower() or "phi3" in name.lower() else f"Phi-3 {name}"
    lowered = name.lower()
    for spelling in ("phi-3", "phi3"):
        while (start := lowered.find(spelling)) >= 0:
            name = f"{name[: start + 3]} {name[start + len(spelling) - 1 :]}"
            lowered = name.lower()
    return name


def _fallen_back(tensors: list[Tensor], kind: str) -> tuple[str, ...]:
    """Say how many matrices have rows that the kind's blocks do not fit."""
    matrices = [tensor for tensor in tensors if len(tensor.shape) > 1]
    odd = [
        tensor for tensor in matrices if tensor.shape[-1] % (256 if KINDS[kind].base.endswith(("_K", "_XS")) else 32)
    ]
    if kind in ("f32", "f16", "bf16") or not odd:
        return ()
    formats = ", ".join(sorted({tensor.type_name for tensor in odd}))
    return (f"{len(odd)} of {len(matrices)} matrices are stored as {formats}: their rows do not divide into blocks",)


# ------------------------------------------------------------------------------------------------------- tensors


def _plan(weights: Weights, config: Any, family: Family, kind: str) -> list[Tensor]:
    """Lay out the file: every tensor of the folder, and what llama.cpp needs besides.

    Raises:
        FinetuneError: a tensor that the family does not have, or layers that are not there.
    """
    tied = bool(config.tie_word_embeddings)
    model = Shape(family.arch, config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads, tied)
    planned = [
        Tensor(name, tuple(value.shape), "F32", partial(iter, [value])) for name, value in rope_tensors(config).items()
    ]
    names = tensor_names(family, config.num_hidden_layers)
    for source, shape in weights.shapes.items():
        if source.endswith(".rotary_emb.inv_freq") or (tied and source == "lm_head.weight"):
            continue
        name = names(source)
        if name is None:
            raise FinetuneError(
                f"the tensor {source!r} has no place in a GGUF file of {family.arch}",
                where=str(weights.files[source]),
                fix="is config.json that of these weights?",
            )
        read = partial(_read, weights, source, config, family)
        planned.append(Tensor(name, shape, tensor_type(kind, name, shape, model), read))
    _require_whole(planned, config, tied, weights.folder)
    return planned


def tensor_names(family: Family, layers: int) -> Callable[[str], str | None]:
    """Return the function from transformers' names of tensors to those in the file."""
    import gguf

    (arch,) = [number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch]
    names = gguf.get_tensor_name_map(arch, layers)
    return partial(names.get_name, try_suffixes=(".weight", ".bias"))


def _require_whole(planned: list[Tensor], config: Any, tied: bool, folder: Path) -> None:
    """Refuse a folder in which some layer lacks what another has, or the embedding is not the configuration's."""
    shapes = {tensor.name: tensor.shape for tensor in planned}
    layers = int(config.num_hidden_layers)
    parts = {name.split(".", 2)[2] for name in shapes if name.startswith("blk.")}
    needed = ["token_embd.weight", "output_norm.weight", *([] if tied else ["output.weight"])]
    needed += [f"blk.{layer}.{part}" for layer in range(layers) for part in sorted(parts)]
    missing = [name for name in needed if name not in shapes]
    if missing or not parts:
        raise FinetuneError(
            f"{len(missing) or 'all'} tensors are missing, such as {(missing or ['blk.0'])[0]!r}",
            where=str(folder),
            fix="fetch or write the folder again",
        )
    if shapes["token_embd.weight"] != (config.vocab_size, config.hidden_size):
        raise FinetuneError(
            f"the embedding is {shapes['token_embd.weight']}, the configuration says "
            f"{(config.vocab_size, config.hidden_size)}",
            where=str(folder),
            fix="is config.json that of these weights?",
        )


def _read(weights: Weights, source: str, config: Any, family: Family) -> Iterator[torch.Tensor]:
    """Yield a tensor's rows in the order and with the offset that llama.cpp wants."""
    heads = paired_heads(source, config, family)
    if heads:
        yield paired(weights.whole(source), heads)
        return
    for rows in weights.rows(source, CHUNK):
        # Gemma multiplies by 1 + weight in float32 (Gemma2RMSNorm); llama.cpp by what the file holds
        yield rows.float() + family.norm_offset if family.norm_offset and source.endswith("norm.weight") else rows


def paired_heads(source: str, config: Any, family: Family) -> int:
    """Return how many heads' rows of a tensor have to be reordered for llama.cpp's RoPE, 0 for none."""
    part = source.rsplit(".", 1)[0]
    if not family.paired_rope or not part.endswith(("q_proj", "k_proj")):
        return 0
    return int(config.num_attention_heads if part.endswith("q_proj") else config.num_key_value_heads)


def paired(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder a projection's rows so that those which RoPE turns together lie side by side.

    transformers turns row i of a head with row i + half, ggml rows 2i and 2i + 1 (the order of Meta's own files).
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write_tensors(writer: Any, tensors: list[Tensor], kind: str, *, where: str) -> None:
    """Write all that gguf's `GGUFWriter` holds, then the tensors, and close the file.

    Raises:
        FinetuneError: a weight is NaN, or too large for its format.
    """
    import gguf

    for tensor in tensors:
        number = gguf.GGMLQuantizationType[tensor.type_name]
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.size, raw_dtype=number)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        (handle,) = writer.fout
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(threads) as pool:
            for tensor in tensors:
                writer.write_padding(handle, handle.tell())
                for encoded in _encoded(tensor, pool, threads, kind, where):
                    handle.write(encoded.data)
        writer.write_padding(handle, handle.tell())
    finally:
        writer.close()


def _encoded(tensor: Tensor, pool: ThreadPoolExecutor, threads: int, kind: str, where: str) -> Iterator[Any]:
    try:
        for rows in tensor.read():
            yield from encode_rows(rows, tensor.type_name, pool, threads)
    except OverflowError as error:
        raise FinetuneError(
            f"the tensor {tensor.name!r} has a number {error}, the largest that {kind} can hold",
            where=where,
            fix="export bf16 or q8_0 instead",
        ) from error
    except ValueError as error:
        raise FinetuneError(
            f"the tensor {tensor.name!r} holds NaN or infinity", where=where, fix="look at the training's loss"
        ) from error
