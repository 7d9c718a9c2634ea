"""Make a saved model folder readable by what people run: `save_compatible(folder, originals)`.

transformers 5 saves what only itself reads. Measured: transformers 4.57 takes such a folder without a word and
computes RoPE with theta 10,000 (logits off by 3); it cannot load the tokenizer; transformers.js finds no chat
template; llama.cpp's converter writes a wrong tokenizer without `tokenizer.model`. The keys of older versions are added
beside the new ones, so that both read the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.models import Base
from finetune.rundir import write_json

SENTENCEPIECE = "tokenizer.model"
# What older versions of longrope's validation take besides its type, and nothing else (Phi3Config, transformers 4)
LONGROPE = ("short_factor", "long_factor")


def original_files(base: Base) -> Path | None:
    """Return the folder with the base's own tokenizer files, fetching `tokenizer.model` where the base is the hub's.

    Returns:
        None where the base is not reachable or has no such file.
    """
    if Path(base.path).is_dir():
        return Path(base.path)
    from transformers.utils import cached_file

    found = cached_file(
        base.path,
        SENTENCEPIECE,
        revision=base.revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found).parent if found else None


def save_compatible(folder: Path, originals: Path | None) -> None:
    """Add to a folder written by transformers 5 what older versions and other programs look for.

    Args:
        folder: as `save_pretrained` of model and tokenizer left it; changed in place.
        originals: folder of the base, whose `tokenizer.model` is copied if the vocabulary is still its own.

    Raises:
        FinetuneError: no space, no permission.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", config | older_rope(config) | _older_dtype(config))
    file = folder / "tokenizer_config.json"
    if file.is_file():
        settings = json.loads(file.read_text(encoding="utf-8"))
        write_json(file, older_tokenizer(settings, _added_tokens(folder), _templates(folder)))
    if originals is not None and _same_vocabulary(folder, originals):
        shutil.copyfile(originals / SENTENCEPIECE, folder / SENTENCEPIECE)


def older_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's RoPE in the keys of transformers 4, empty where it has none."""
    parameters = config.get("rope_parameters")
    if not parameters:
        return {}
    own = parameters.get("full_attention", parameters)
    found = {name: own[name] for name in ("rope_theta", "partial_rotary_factor") if name in own}
    kind = own.get("rope_type", "default")
    if kind != "default":
        rest = {name: value for name, value in own.items() if name not in (*found, "type")}
        if kind == "longrope":
            rest = {"type": kind} | {name: own[name] for name in LONGROPE}
        found["rope_scaling"] = rest
    if "sliding_attention" in parameters:
        found["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
    return found


def _older_dtype(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"torch_dtype": config["dtype"]} if config.get("dtype") else {}


def older_tokenizer(
    settings: Mapping[str, Any], added: list[dict[str, Any]], template: str | list[dict[str, str]] | None
) -> dict[str, Any]:
    """Return tokenizer_config.json as transformers 4 and transformers.js read it.

    Args:
        settings: as transformers 5 wrote them.
        added: `added_tokens` of tokenizer.json.
        template: the chat template or templates, which lie in files of their own.
    """
    # How and from where the tokenizer was loaded when it was saved is nothing that anybody else can use
    left_out = ("backend", "is_local", "local_files_only", "extra_special_tokens")
    found = {name: value for name, value in settings.items() if name not in left_out}
    found["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, Mapping):
        found["extra_special_tokens"] = dict(extra)
    elif extra:
        found["additional_special_tokens"] = list(extra)
    found["added_tokens_decoder"] = {
        str(one["id"]): {name: value for name, value in one.items() if name != "id"} for one in added
    }
    if template is not None:
        found["chat_template"] = template
    return found


def _added_tokens(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _rules(folder).get("added_tokens", [])
    return found


def _templates(folder: Path) -> str | list[dict[str, str]] | None:
    """Return the chat template that transformers 5 has put beside tokenizer_config.json, or all of several."""
    file = folder / "chat_template.jinja"
    if not file.is_file():
        return None
    template = file.read_text(encoding="utf-8")
    others = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    if not others:
        return template
    named = [{"name": "default", "template": template}]
    return named + [{"name": other.stem, "template": other.read_text(encoding="utf-8")} for other in others]


def _same_vocabulary(folder: Path, originals: Path) -> bool:
    """Whether the base has a `tokenizer.model` and the folder still has the base's vocabulary.

    Where the base's tokenizer.json is missing, its tokenizer was made from `tokenizer.model`.
    """
    if not (originals / SENTENCEPIECE).is_file():
        return False
    base = _rules(originals).get("model", {})
    return not base or base.get("vocab") == _rules(folder).get("model", {}).get("vocab")


def _rules(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
