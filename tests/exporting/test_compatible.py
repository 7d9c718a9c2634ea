"""A merged folder reads the same in transformers 5 and in what people still run.

FINETUNE_TRANSFORMERS4 names a Python that has transformers 4.57 and torch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from finetune.exporting.compatible import older_rope, older_tokenizer, original_files, save_compatible
from finetune.exporting.merge import save_merged
from finetune.models import folder_base
from tests.exporting.gguf.families import FAMILIES, GEMMA3_ROPE, LLAMA3_ROPE, LONGROPE, build_family
from tests.tiny import CHATML, tiny_model, tiny_tokenizer

OLDER = os.environ.get("FINETUNE_TRANSFORMERS4", "")
TURNS = [
    {"role": "user", "content": "Hello there. 1 and 2."},
    {"role": "assistant", "content": "Thank you."},
    {"role": "user", "content": "  I cannot log in,\nnaïve 日本"},
]
TEXTS = ["Hello there.", "  two spaces", "1234 and 5", "naïve 日本 \U0001f600", "a\n\nb"]
READ = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import numpy, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, target = sys.argv[1:]
asked = json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
with torch.no_grad():
    numpy.save(target, model(torch.tensor([asked["ids"]])).logits[0].numpy())
print(json.dumps({
    "version": transformers.__version__,
    "stored_dtype": str(AutoModelForCausalLM.from_pretrained(folder, torch_dtype="auto").dtype),
    "texts": [tokenizer(text)["input_ids"] for text in asked["texts"]],
    "chat": list(tokenizer.apply_chat_template(asked["turns"], add_generation_prompt=True)),
}))
"""


def merged(folder: Path, name: str) -> Any:
    """Save a family's model as a merged folder; returns the model and its tokenizer as transformers 5 reads them."""
    model, tokenizer = build_family(name)
    save_merged(model, tokenizer, folder, dtype=torch.float32, stop=[tokenizer.eos_token_id])
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def settings(folder: Path, name: str = "tokenizer_config.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return found


# ----------------------------------------------------------------------------------------- what people still run


@pytest.mark.slow
@pytest.mark.skipif(not OLDER, reason="FINETUNE_TRANSFORMERS4 names no Python with transformers 4.57")
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "ministral3"])  # came with transformers 5
def test_transformers_4_computes_the_same(tmp_path: Path, name: str) -> None:
    model, tokenizer = merged(tmp_path / "merged", name)
    ids = torch.randint(5, len(tokenizer), (300,), generator=torch.Generator().manual_seed(0)).tolist()
    asked = {"ids": ids, "texts": TEXTS, "turns": TURNS}
    done = subprocess.run(
        [OLDER, "-c", READ, str(tmp_path / "merged"), str(tmp_path / "logits.npy")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["version"].startswith("4.57.")
    assert found["stored_dtype"] == "torch.float32"
    assert found["texts"] == [tokenizer(text).input_ids for text in TEXTS]
    assert found["chat"] == tokenizer.apply_chat_template(TURNS, add_generation_prompt=True).input_ids
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    logits = np.load(tmp_path / "logits.npy")
    assert np.abs(logits - expected).max() < 1e-4
    assert np.abs(expected).max() > 0.5


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_5_reads_what_it_read_before(tmp_path: Path, name: str) -> None:
    model, tokenizer = build_family(name)
    model.save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    shutil.copytree(tmp_path / "plain", tmp_path / "compatible")
    save_compatible(tmp_path / "compatible", None)

    before, after = (AutoConfig.from_pretrained(tmp_path / kind).to_dict() for kind in ("plain", "compatible"))
    # The older name of rope_type stays in longrope's parameters
    after["rope_parameters"].pop("type", before["rope_parameters"].get("type"))
    before["rope_parameters"].pop("type", None)
    assert {key: after[key] for key in before if key != "_name_or_path"} == {
        key: value for key, value in before.items() if key != "_name_or_path"
    }
    first, second = (AutoTokenizer.from_pretrained(tmp_path / kind) for kind in ("plain", "compatible"))
    assert [second(text).input_ids for text in TEXTS] == [first(text).input_ids for text in TEXTS]
    assert second.apply_chat_template(TURNS) == first.apply_chat_template(TURNS)
    assert second.all_special_tokens == first.all_special_tokens


# -------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("parameters", "older"),
    [
        ({"rope_type": "default", "rope_theta": 1e5}, {"rope_theta": 1e5}),
        (
            LLAMA3_ROPE,
            {
                "rope_theta": 500000.0,
                "rope_scaling": {name: value for name, value in LLAMA3_ROPE.items() if name != "rope_theta"},
            },
        ),
        (
            GEMMA3_ROPE,
            {
                "rope_theta": 1000000.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                "rope_local_base_freq": 10000.0,
            },
        ),
        (
            LONGROPE,
            {
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.75,
                "rope_scaling": {
                    "type": "longrope",
                    "short_factor": LONGROPE["short_factor"],
                    "long_factor": LONGROPE["long_factor"],
                },
            },
        ),
        (None, {}),
    ],
    ids=["default", "llama3", "gemma3", "longrope", "none"],
)
def test_rope_is_said_in_the_older_keys(parameters: Any, older: dict[str, Any]) -> None:
    assert older_rope({"rope_parameters": parameters}) == older


def test_the_newer_keys_stay(tmp_path: Path) -> None:
    merged(tmp_path / "merged", "llama3")
    config = settings(tmp_path / "merged", "config.json")
    assert config["rope_parameters"] == LLAMA3_ROPE
    assert config["dtype"] == config["torch_dtype"] == "float32"


# ------------------------------------------------------------------------------------------------------ tokenizer


def test_the_tokenizer_is_said_as_older_versions_want_it(tmp_path: Path) -> None:
    merged(tmp_path / "merged", "smollm2")
    found = settings(tmp_path / "merged")
    assert found["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert found["chat_template"] == CHATML == (tmp_path / "merged" / "chat_template.jinja").read_text()
    assert found["additional_special_tokens"] == ["<|im_start|>"]
    assert not {"backend", "is_local", "local_files_only", "extra_special_tokens"} & set(found)
    assert found["added_tokens_decoder"]["2"] == {
        "content": "<|im_start|>",
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }


def test_named_special_tokens_keep_their_names() -> None:
    found = older_tokenizer({"extra_special_tokens": {"image_token": "<image>"}, "backend": "tokenizers"}, [], None)
    assert found == {
        "extra_special_tokens": {"image_token": "<image>"},
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {},
    }


def test_several_templates_go_along(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"default": CHATML, "tools": CHATML + "tools"}
    save_merged(tiny_model(tokenizer), tokenizer, tmp_path / "merged", dtype=torch.float32, stop=[3])
    assert settings(tmp_path / "merged")["chat_template"] == [
        {"name": "default", "template": CHATML},
        {"name": "tools", "template": CHATML + "tools"},
    ]


# -------------------------------------------------------------------------------------------------- original files


def test_the_original_sentencepiece_file_goes_along(tmp_path: Path) -> None:
    model, tokenizer = build_family("mistral")
    base = tmp_path / "base"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    (base / "tokenizer.model").write_bytes(b"pieces")
    save_merged(model, tokenizer, tmp_path / "merged", dtype=torch.float32, stop=[2], base=folder_base(base))
    assert (tmp_path / "merged" / "tokenizer.model").read_bytes() == b"pieces"


def test_it_stays_behind_where_the_vocabulary_is_another(tmp_path: Path) -> None:
    model, tokenizer = build_family("mistral")
    base = tmp_path / "base"
    model.save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    (base / "tokenizer.model").write_bytes(b"pieces")
    save_merged(model, tokenizer, tmp_path / "merged", dtype=torch.float32, stop=[2], base=folder_base(base))
    assert not (tmp_path / "merged" / "tokenizer.model").exists()


def test_a_base_without_one_is_no_fault(tmp_path: Path) -> None:
    model, tokenizer = build_family("smollm2")
    tokenizer.save_pretrained(tmp_path / "base")
    save_merged(
        model, tokenizer, tmp_path / "merged", dtype=torch.float32, stop=[3], base=folder_base(tmp_path / "base")
    )
    assert original_files(folder_base(tmp_path / "base")) == tmp_path / "base"
    assert not (tmp_path / "merged" / "tokenizer.model").exists()
