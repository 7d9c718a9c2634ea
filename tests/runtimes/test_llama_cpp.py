"""A GGUF file in llama.cpp: the numbers are transformers', and a broken or hanging file is a fault with a name."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.errors import FinetuneError
from finetune.exporting.gguf import convert
from finetune.runtimes import LlamaCppRuntime, TransformersRuntime
from finetune.runtimes import llama_cpp as module
from finetune.runtimes.llama_cpp import rendered
from tests.tiny import tiny_model, tiny_tokenizer

pytest.importorskip("xllamacpp")
VOCABULARY = len(tiny_tokenizer())
PROMPTS = [[5, 9, 30], [7], [40, 41, 42, 43, 44, 45], [100, 101]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return convert(folder / "model", folder / "tiny.gguf", kind="f32").path


@pytest.fixture
def both(file: Path) -> Any:
    tokenizer = tiny_tokenizer()
    with LlamaCppRuntime(file, tokenizer, name="llama.cpp", threads=1) as runtime:
        yield runtime, TransformersRuntime(tiny_model(tokenizer), tokenizer, name="transformers")


def test_predictions_are_those_of_transformers(both: Any) -> None:
    mine, theirs = both
    # Longer than what is computed at once
    ids = torch.randint(4, VOCABULARY, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    found, wanted = mine.log_probabilities(ids), theirs.log_probabilities(ids)
    assert found.shape == wanted.shape == (300, VOCABULARY)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() < 2e-3
    assert np.exp(found.astype(np.float64)).sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_likelihoods_count_what_is_marked(both: Any) -> None:
    mine, theirs = both
    rows = [([5, 6, 7, 8], [True, False, True, True]), ([9, 10], [True, False])]
    found = mine.log_likelihoods(rows)
    assert found == pytest.approx(theirs.log_likelihoods(rows), abs=1e-2)
    assert found[1] == 0.0


def test_answers_are_those_of_transformers_whatever_is_answered_beside_them(both: Any) -> None:
    mine, theirs = both
    seen: list[int] = []
    many = PROMPTS * 5
    found = mine.generate(many, max_new_tokens=6, stop=[0], progress=seen.append)
    wanted = theirs.generate(many, max_new_tokens=6, stop=[0])
    assert [one.token_ids for one in found] == [one.token_ids for one in wanted]
    assert [one.text for one in found] == [one.text for one in wanted]
    assert seen == [16, 20]
    alone = [mine.generate([prompt], max_new_tokens=6, stop=[0])[0] for prompt in PROMPTS]
    assert alone == found[:4]
    assert mine.tokens_per_second > 0


def test_an_answer_ends_before_its_stop_token(both: Any) -> None:
    mine, _ = both
    frees = mine.generate(PROMPTS, max_new_tokens=8, stop=[])
    assert {(len(free.token_ids), free.ended) for free in frees} == {(8, False)}
    # A model of random weights mostly repeats itself; the last token that was not there before ends the answer
    places = [max(free.token_ids.index(token) for token in free.token_ids) for free in frees]
    assert max(places) > 0
    for prompt, free, place in zip(PROMPTS, frees, places, strict=True):
        (cut,) = mine.generate([prompt], max_new_tokens=8, stop=[free.token_ids[place]])
        assert (cut.token_ids, cut.ended) == (free.token_ids[:place], True)
    assert mine.generate([], max_new_tokens=5, stop=[]) == []


def test_what_the_file_says_of_itself(both: Any, file: Path) -> None:
    mine, _ = both
    facts = mine.facts
    assert (facts.vocabulary, facts.trained_context, facts.has_template) == (VOCABULARY, 512, True)
    assert (facts.quantization, round(facts.bits_per_weight)) == ("f32", 32)
    assert 3 in facts.stops
    assert facts.adds_bos is False
    assert 0 < mine.size_bytes() < file.stat().st_size
    assert 0 < facts.load_seconds < 60
    assert 10_000_000 < mine.peak_memory() < 2_000_000_000


def test_text_and_template_become_the_tokens_of_the_tokenizer(both: Any, file: Path) -> None:
    mine, _ = both
    tokenizer = tiny_tokenizer()
    texts = ["Hello there", "  two blanks", "", "Zürich 12345 🙂", "<|im_start|>user\nHi<|im_end|>\n"]
    assert mine.tokenise(texts) == [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    messages = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "Hi"}]
    (prompt,) = rendered(file, [messages])
    assert prompt == tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


# ------------------------------------------------------------------------------------------------------ broken files


def opened(path: Path) -> LlamaCppRuntime:
    return LlamaCppRuntime(path, tiny_tokenizer(), name="x", threads=1)


def fault_of(path: Path) -> str:
    with pytest.raises(FinetuneError) as caught:
        opened(path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    return problem.what


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "none.gguf") == "there is no such file"


@pytest.mark.parametrize("kept", [0, 3, 20, 5_000])
def test_a_cut_file_is_refused(file: Path, tmp_path: Path, kept: int) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:kept])
    assert fault_of(cut).startswith("llama.cpp cannot load it")


def test_a_file_without_its_last_tensor_is_refused(file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:-1000])
    assert fault_of(cut).startswith("llama.cpp cannot load it (")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_text("model: {base: x}\n" * 100)
    assert fault_of(other).startswith("llama.cpp cannot load it")


def test_a_file_that_promises_more_than_there_is_cannot_take_the_memory(file: Path, tmp_path: Path) -> None:
    liar = tmp_path / "liar.gguf"
    raw = bytearray(file.read_bytes())
    # How many entries the metadata has
    struct.pack_into("<Q", raw, 16, 1 << 60)
    liar.write_bytes(raw)
    assert fault_of(liar).startswith(("llama.cpp cannot load it", "llama.cpp crashed on this file"))


def test_a_token_that_the_file_has_not_is_refused(file: Path) -> None:
    with opened(file) as runtime, pytest.raises(FinetuneError, match=f"the file has no token {VOCABULARY}: "):
        runtime.log_probabilities([5, VOCABULARY])


def test_a_crash_is_the_files_fault_and_not_ours(file: Path) -> None:
    with opened(file) as runtime:
        os.kill(runtime._worker._process.pid, signal.SIGSEGV)
        with pytest.raises(FinetuneError) as caught:
            runtime.log_probabilities([5, 6])
    assert str(caught.value) == (
        f"{file}: llama.cpp crashed on this file (exit code -11)\n    -> export it again, or fetch it again"
    )


def test_a_file_that_hangs_is_given_up(file: Path) -> None:
    with opened(file) as runtime:
        runtime._worker.patience = 0.5
        os.kill(runtime._worker._process.pid, signal.SIGSTOP)
        with pytest.raises(FinetuneError, match=r"llama\.cpp hangs on this file: no sign of life for 0\.5 s"):
            runtime.log_probabilities([5, 6])
        assert runtime._worker._process.poll() is not None


def test_the_process_knows_no_secrets_and_writes_no_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with opened(file) as runtime:
        process = Path("/proc") / str(runtime._worker._process.pid)
        if not process.exists():
            pytest.skip("needs /proc")
        assert b"hf_secret" not in (process / "environ").read_bytes()
        limits = (process / "limits").read_text()
    assert "Max core file size        0 " in limits
    assert "Max file size             4194304 " in limits


def test_without_the_wheel_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FinetuneError) as caught:
        opened(file)
    assert str(caught.value) == (
        "reading a .gguf file in llama.cpp needs the package 'xllamacpp', which is not installed\n"
        "    -> pip install 'finetune[gguf]'"
    )


def test_continuations_are_scored_as_in_transformers(both: Any) -> None:
    mine, theirs = both
    continuations = [[[6], [7, 8]], [[9]], [[1, 2, 3]], [[50, 51], [52]]]
    found = mine.choice_log_likelihoods(PROMPTS, continuations)
    for given, expected in zip(found, theirs.choice_log_likelihoods(PROMPTS, continuations), strict=True):
        assert given == pytest.approx(expected, abs=1e-3)
    (greedy,) = mine.generate([PROMPTS[0]], max_new_tokens=2, stop=[])
    ((likeliest, other),) = mine.score_continuations([PROMPTS[0]], [[list(greedy.token_ids), [1, 1]]])
    assert likeliest.greedy
    assert not other.greedy


def test_a_stop_text_ends_an_answer_before_it(both: Any) -> None:
    mine, _ = both
    (whole,) = mine.generate([PROMPTS[2]], max_new_tokens=6, stop=[])
    text = whole.text[2:4]
    assert text
    (cut,) = mine.generate([PROMPTS[2]], max_new_tokens=6, stop=[], until=[text, ""])
    assert (cut.text, cut.ended) == (whole.text[: whole.text.find(text)], True)
    (other,) = mine.generate([PROMPTS[2]], max_new_tokens=6, stop=[], until=["nowhere"])
    assert other == whole
