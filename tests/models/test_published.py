"""Tokenizers split text as their files say: published token ids, and what transformers changes is mended and told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from finetune.data.chat.tokens import TextCoder
from finetune.models import Base, load_tokenizer
from finetune.models.published import as_published

TOKENIZERS = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[3] / "shared")) / "models" / "tokenizers"
published = pytest.mark.skipif(
    not TOKENIZERS.is_dir(), reason="needs models/tokenizers in FINETUNE_SHARED or in ../shared"
)


def base_of(folder: Path) -> Base:
    return Base(name="x", path=str(folder), revision=None, fingerprint="", where="model.base")


@published
@pytest.mark.parametrize(
    ("name", "family", "mended"),
    [("phi3", "phi-3", True), ("qwen2.5", "qwen2", False), ("bert-base-uncased", "bert-bge", False)],
)
def test_published_token_ids_agree(name: str, family: str, mended: bool) -> None:
    vectors = TOKENIZERS / "vectors" / f"ggml-vocab-{family}.gguf"
    texts = vectors.with_name(vectors.name + ".inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    lines = vectors.with_name(vectors.name + ".out").read_text("utf-8").splitlines()
    assert len(texts[: len(lines)]) == 46
    texts = texts[:46]  # the last text is empty and has no line
    wanted = [[int(word) for word in line.split()] for line in lines]
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZERS / name)
    before = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert as_published(tokenizer, base_of(TOKENIZERS / name)) == mended
    assert (before == wanted) != mended
    assert tokenizer(texts, add_special_tokens=False)["input_ids"] == wanted
    assert [tokens.ids.tolist() for tokens in TextCoder(tokenizer).encode_many(texts)] == wanted
    assert not as_published(tokenizer, base_of(TOKENIZERS / name))


def llama_folder(folder: Path) -> Path:
    words = {"<unk>": 0, "</s>": 1, "\u2581": 2, "a": 3, "\u2581a": 4, "b": 5, "\n": 6, "\u2581\u2581": 7}
    merges = [("\u2581", "\u2581"), ("\u2581", "a")]
    tokenizer = Tokenizer(models.BPE(words, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    fast.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    config.write_text(
        config.read_text()
        .replace("PreTrainedTokenizerFast", "LlamaTokenizer")
        .replace("TokenizersBackend", "LlamaTokenizer")
    )
    return folder


def test_what_is_mended_is_told(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path)
    assert type(AutoTokenizer.from_pretrained(folder)).__name__ == "LlamaTokenizer"
    tokenizer, notes = load_tokenizer(base_of(folder))
    assert tokenizer(" a", add_special_tokens=False)["input_ids"] == [7, 3]
    assert [str(note) for note in notes] == [
        "model.base: transformers splits text that begins with a space otherwise than tokenizer.json; the file's rules "
        "hold"
    ]
    assert tokenizer.decode(tokenizer(" a", add_special_tokens=False)["input_ids"]) == " a"


def test_a_tokenizer_that_agrees_is_left_alone(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.save_pretrained(tmp_path)
    assert not as_published(fast, base_of(tmp_path))
    (tmp_path / "empty").mkdir()
    assert not as_published(fast, base_of(tmp_path / "empty"))
