"""A tokenizer in a GGUF file: its rules by name, its tokens, scores, ends and spaces."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from finetune.errors import FinetuneError
from finetune.exporting.gguf import convert
from finetune.exporting.gguf.splitting import GPT4O, LLAMA3, QWEN2, QWEN35, TEKKEN, splitting_name
from finetune.exporting.gguf.vocabulary import UNMERGED, Vocabulary, read_vocabulary
from tests.exporting.gguf.families import (
    GEMMA,
    MISTRAL,
    SIZES,
    gemma_tokenizer,
    phi_tokenizer,
    qwen_tokenizer,
    sentencepiece_tokenizer,
)
from tests.tiny import tiny_tokenizer

pytest.importorskip("gguf")
SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[4] / "shared")) / "models"
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
TURNS = [
    {"role": "user", "content": "Hello there. 1 and 2."},
    {"role": "assistant", "content": "Thank  you."},
    {"role": "user", "content": "  I cannot log in,\nnaïve 日本"},
]


def read(folder: Path, tokenizer: Any, *, size: int | None = None, stop: tuple[int, ...] = ()) -> Vocabulary:
    tokenizer.save_pretrained(folder)
    return read_vocabulary(folder, size=size or len(tokenizer), stop=stop, bos=None)


# ----------------------------------------------------------------------------------------------------------- rules


def rules(*steps: dict[str, Any], **model: Any) -> dict[str, Any]:
    return {"model": {"type": "BPE", **model}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}


def split(regex: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ENCODE = BYTES | {"use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}
# As tiktoken spells Llama 3's rules
TIKTOKEN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (rules(BYTES), "gpt-2"),
        (rules(DIGITS, BYTES), "smollm"),
        (rules(split(QWEN2[1]), ENCODE), "qwen2"),
        (rules(split(QWEN35[1]), ENCODE), "qwen35"),
        (rules(split(LLAMA3[1]), ENCODE, ignore_merges=True), "llama-bpe"),
        (rules(split(LLAMA3[1]), ENCODE), "dbrx"),
        (rules(split(TIKTOKEN), ENCODE), "dbrx"),
        (rules(split(TEKKEN[1]), ENCODE, ignore_merges=True), "tekken"),
        (rules(split(GPT4O[1], "Removed", True), ENCODE), "gpt-4o"),
    ],
)
def test_rules_have_llama_cpps_name(found: dict[str, Any], name: str) -> None:
    assert splitting_name(found, where="here") == name


@pytest.mark.parametrize(
    "found",
    [
        rules(split(r"\w+"), ENCODE),
        rules(split(QWEN2[1], "Removed"), ENCODE),
        rules(split(QWEN2[1]), ENCODE, ignore_merges=True),
        rules(BYTES | {"add_prefix_space": True}),
        rules({"type": "Whitespace"}),
        rules(DIGITS | {"individual_digits": False}, BYTES),
        rules(),
    ],
)
def test_rules_that_llama_cpp_lacks_are_refused(found: dict[str, Any]) -> None:
    with pytest.raises(FinetuneError, match=r"llama\.cpp does not know how this tokenizer cuts text") as caught:
        splitting_name(found, where="tokenizer.json")
    assert caught.value.problems[0].fix == (
        "export the merged folder instead; known are the rules of dbrx, gpt-2, gpt-4o, llama-bpe, qwen2, qwen35, "
        "smollm, tekken, and SentencePiece's"
    )


def test_an_extended_vocabulary_keeps_its_name(tmp_path: Path) -> None:
    tokenizer = qwen_tokenizer()
    tokenizer.add_tokens(["tachycardia"])
    found = read(tmp_path, tokenizer)
    assert found.splitting == "qwen2"
    assert found.types[found.tokens.index("tachycardia")] == USER


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "nothing like the normalizer 'Lowercase'"),
        ({"model.end_of_word_suffix": "</w>"}, "nothing like end_of_word_suffix '</w>'"),
    ],
)
def test_a_byte_level_tokenizer_that_does_more_is_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    found = json.loads(file.read_text())
    for key, value in change.items():
        part = found["model"] if key.startswith("model.") else found
        part[key.removeprefix("model.")] = value
    file.write_text(json.dumps(found))
    with pytest.raises(FinetuneError, match=what):
        read_vocabulary(tmp_path, size=500, stop=(), bos=None)


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path / "words")
    with pytest.raises(FinetuneError, match="a tokenizer of type 'WordLevel' cannot be written as GGUF"):
        read_vocabulary(tmp_path / "words", size=2, stop=(), bos=None)
    odd = sentencepiece_tokenizer()
    odd.backend_tokenizer.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
    with pytest.raises(FinetuneError, match=r"llama\.cpp's SentencePiece tokenizer has no step like"):
        read(tmp_path / "odd", odd)
    with pytest.raises(FinetuneError, match="the tokenizer cannot be loaded"):
        read_vocabulary(tmp_path / "nothing", size=2, stop=(), bos=None)


# ---------------------------------------------------------------------------------------------------------- tokens


def test_byte_level_tokens_and_merges_are_the_tokenizers(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    found = read(tmp_path, tokenizer, size=len(tokenizer) + 2)
    assert found.tokens == [*tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))), "[PAD432]", "[PAD433]"]
    assert found.types[:5] == [CONTROL] * 4 + [NORMAL]
    assert found.types[-2:] == [UNUSED, UNUSED]
    assert found.scores is None
    merges = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"]
    assert found.merges == [f"{left} {right}" for left, right in merges]
    assert len(merges) > 100


def test_sentencepiece_scores_are_the_order_of_merging(tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer(specials=("<|end|>",))
    found = read(tmp_path, tokenizer)
    assert found.scores is not None
    assert found.merges is None
    merges = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"]
    first = [found.scores[found.tokens.index("".join(pair))] for pair in merges]
    assert first[0] == 0
    assert first == sorted(first, reverse=True)
    assert len(first) > 100
    kinds = {"<unk>": UNKNOWN, "<s>": CONTROL, "<0x0A>": BYTE, "<|end|>": CONTROL, "".join(merges[0]): NORMAL}
    assert {text: found.types[found.tokens.index(text)] for text in kinds} == kinds
    assert found.scores[found.tokens.index("<0x0A>")] == UNMERGED


def test_spaces_of_user_tokens_are_plain_spaces(tmp_path: Path) -> None:
    tokenizer = gemma_tokenizer()
    tokenizer.add_tokens(["▁▁"])
    found = read(tmp_path, tokenizer)
    assert found.types[found.tokens.index("  ")] == USER


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(FinetuneError) as caught:
        read(tmp_path, tokenizer, size=400)
    assert str(caught.value) == (
        f"{tmp_path / 'tokenizer.json'}: the tokenizer has tokens up to number {len(tokenizer) - 1}, "
        "the model only 400 rows\n"
        "    -> resize the model's embedding (model.resize_token_embeddings) and export again"
    )


# ------------------------------------------------------------------------------------------------- beginning and end


@pytest.mark.parametrize(
    ("tokenizer", "bos"),
    [
        (tiny_tokenizer(), False),
        (tiny_tokenizer(None, add_bos=True), True),
        # Llama's chats begin with BOS by their template; a template that does not was trained without
        (tiny_tokenizer("{{ bos_token }}{{ messages[0]['content'] }}", add_bos=True), True),
        (tiny_tokenizer(add_bos=True), False),
        (sentencepiece_tokenizer(), True),
        (sentencepiece_tokenizer(MISTRAL.replace("{{ bos_token }}", "")), False),
        (phi_tokenizer(), False),
    ],
)
def test_bos_is_added_where_training_had_it(tmp_path: Path, tokenizer: Any, bos: bool) -> None:
    found = read(tmp_path, tokenizer)
    assert (found.add_bos, found.add_eos) == (bos, False)


def test_every_token_that_ends_an_answer_has_a_place(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(specials=("<s>", "<pad>", "<one>", "<two>", "<three>", "<|im_end|>", "<stop>"))
    ends = [tokenizer.convert_tokens_to_ids(text) for text in ("<stop>", "<|im_end|>", "<two>")]
    ids = read(tmp_path, tokenizer, stop=tuple(ends)).ids
    assert ids == {"bos": 0, "pad": 1, "eos": ends[0], "eot": ends[2], "eom": ends[1]}
    four = [tokenizer.convert_tokens_to_ids(text) for text in ("<stop>", "<one>", "<two>", "<three>")]
    with pytest.raises(FinetuneError, match="GGUF has room for three tokens that end an answer, this model has 4"):
        read(tmp_path, tokenizer, stop=tuple(four))


def test_the_template_goes_along(tmp_path: Path) -> None:
    assert read(tmp_path, gemma_tokenizer()).template == GEMMA
    several = tiny_tokenizer()
    several.chat_template = {"default": "a", "tools": "b"}
    assert read(tmp_path / "several", several).template == [
        {"name": "default", "template": "a"},
        {"name": "tools", "template": "b"},
    ]


# ---------------------------------------------------------------------------------------------------------- spaces


@pytest.mark.parametrize(
    ("tokenizer", "prefix", "notes"),
    [
        (sentencepiece_tokenizer(), False, 1),
        (sentencepiece_tokenizer(prefix="always"), True, 0),
        (sentencepiece_tokenizer(None), True, 0),
        (sentencepiece_tokenizer(None, prefix="legacy"), True, 0),
        (gemma_tokenizer(), False, 0),
        (phi_tokenizer(), False, 1),
        (tiny_tokenizer(), None, 0),
    ],
)
def test_the_space_before_text_is_what_chats_have(
    tmp_path: Path, tokenizer: Any, prefix: bool | None, notes: int
) -> None:
    found = read(tmp_path, tokenizer)
    assert found.space_prefix is prefix
    assert len(found.notes) == notes


# ------------------------------------------------------------------------------------------------------- llama.cpp


def real(name: str, folder: Path) -> Any:
    """Save a tiny model with a real tokenizer, and return that as transformers loads it."""
    source = SHARED / ("stories260K" if name == "llama" else f"tokenizers/{name}")
    if not source.is_dir():
        pytest.skip(f"no {source.name} under FINETUNE_SHARED")
    tokenizer = AutoTokenizer.from_pretrained(source)
    if name == "phi3":
        file = SHARED / "chat_templates" / "from_tokenizer_config" / "phi3-mini.jinja"
        tokenizer.chat_template = file.read_text()
    stem = {"qwen2.5": "Qwen2", "phi3": "Phi3", "llama": "Llama"}[name]
    sizes = SIZES | {"num_hidden_layers": 1, "vocab_size": len(tokenizer) + 6, "pad_token_id": None}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = getattr(transformers, f"{stem}Config")(**(sizes | ends))
    getattr(transformers, f"{stem}ForCausalLM")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
@pytest.mark.parametrize(("name", "vectors"), [("qwen2.5", "qwen2"), ("phi3", None), ("llama", "llama-spm")])
def test_llama_cpp_cuts_as_the_real_tokenizers_do(tmp_path: Path, name: str, vectors: str | None) -> None:
    from finetune.runtimes.llama_cpp import LlamaCppRuntime

    tokenizer = real(name, tmp_path / "model")
    texts = []
    if vectors is not None:
        file = SHARED / "tokenizers" / "vectors" / f"ggml-vocab-{vectors}.gguf.inp"
        texts = file.read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
        assert len(texts) == 47
    expected = [tokenizer(text).input_ids for text in texts]
    if tokenizer.chat_template:
        for turns in (TURNS[:1], TURNS):
            texts.append(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
            expected.append(list(tokenizer.apply_chat_template(turns, add_generation_prompt=True).input_ids))
    made = convert(tmp_path / "model", tmp_path / "it.gguf", kind="f16")
    with LlamaCppRuntime(made.path, tokenizer, name="it") as runtime:
        assert runtime.tokenise(texts) == expected
    assert len(expected) >= 2
