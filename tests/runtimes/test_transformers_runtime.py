"""A live model as a runtime: batches change nothing, and the base answers from under its adapter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.models import attach
from finetune.recipe.schema import LoraMethod
from finetune.runtimes import Generation, TransformersRuntime
from finetune.runtimes import transformers_runtime as module
from tests.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
EOS = TOKENIZER.eos_token_id


def prompts(count: int = 9, seed: int = 0) -> list[list[int]]:
    """Prompts of unlike lengths, from 1 token upwards."""
    generator = np.random.default_rng(seed)
    return [generator.integers(5, 400, length).tolist() for length in [1, *generator.integers(2, 40, count - 1)]]


def rows(count: int = 9, seed: int = 0) -> list[tuple[list[int], list[bool]]]:
    generator = np.random.default_rng(seed + 1)
    return [(ids, (generator.random(len(ids)) < 0.5).tolist()) for ids in prompts(count, seed)]


def tuned_model(**method: Any) -> Any:
    """An adapter that has learned something, if only noise."""
    model = attach(tiny_model(TOKENIZER), LoraMethod(rank=4, **method)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def runtime(model: Any = None, **options: Any) -> TransformersRuntime:
    return TransformersRuntime(tiny_model(TOKENIZER) if model is None else model, TOKENIZER, name="tiny", **options)


def one_by_one(model: Any, asked: list[list[int]], length: int, stop: list[int]) -> list[tuple[int, ...]]:
    """Greedy decoding written out: the likeliest token after the whole text so far, without cache or padding."""
    answers = []
    for prompt in asked:
        tokens = list(prompt)
        while len(tokens) < len(prompt) + length:
            with torch.no_grad():
                following = int(model(torch.tensor([tokens])).logits[0, -1].argmax())
            if following in stop:
                break
            tokens.append(following)
        answers.append(tuple(tokens[len(prompt) :]))
    return answers


def manual_log_likelihood(model: Any, ids: list[int], marks: list[bool]) -> float:
    with torch.no_grad():
        scores = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
    return sum(float(scores[position - 1, ids[position]]) for position in range(1, len(ids)) if marks[position])


# ------------------------------------------------------------------------------------------------------ answers


@pytest.fixture(params=["one batch", "batches of two"])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "batches of two":
        monkeypatch.setitem(module.BATCH_ROWS, "cpu", 2)


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("adapter", [None, True, False])
def test_greedy_answers_are_those_of_one_prompt_at_a_time(adapter: bool | None) -> None:
    model = tiny_model(TOKENIZER) if adapter is None else tuned_model()
    alone = tiny_model(TOKENIZER) if adapter is not True else model
    asked = prompts()
    answers = runtime(model, adapter=adapter is not False).generate(asked, max_new_tokens=12, stop=[EOS])
    assert [answer.token_ids for answer in answers] == one_by_one(alone, asked, 12, [EOS])
    for prompt, answer in zip(asked, answers, strict=True):
        given_ids = torch.tensor([prompt])
        own = alone.generate(given_ids, max_new_tokens=12, do_sample=False, eos_token_id=EOS, pad_token_id=1)
        assert answer.token_ids == tuple(token for token in own[0, len(prompt) :].tolist() if token != EOS)


def test_answers_come_in_the_order_of_the_prompts() -> None:
    asked = prompts()
    forward = runtime().generate(asked, max_new_tokens=4, stop=[EOS])
    backward = runtime().generate(asked[::-1], max_new_tokens=4, stop=[EOS])
    assert forward == backward[::-1]
    assert len({answer.token_ids for answer in forward}) > 3


def test_an_answer_ends_before_its_stop_token() -> None:
    asked = prompts()
    free = runtime().generate(asked, max_new_tokens=8, stop=[])
    assert all(len(answer.token_ids) == 8 and not answer.ended for answer in free)
    stops = sorted({free[0].token_ids[3], free[4].token_ids[5]})
    seen = 0
    for whole, answer in zip(free, runtime().generate(asked, max_new_tokens=8, stop=stops), strict=True):
        end = next((place for place, token in enumerate(whole.token_ids) if token in stops), None)
        assert answer.ended == (end is not None)
        assert answer.token_ids == whole.token_ids[:end]
        assert answer.text == TOKENIZER.decode(answer.token_ids, skip_special_tokens=True)
        seen += answer.ended
    assert 2 <= seen < len(asked)


def test_a_stop_token_at_once_is_an_empty_answer() -> None:
    first = runtime().generate([[5, 6, 7]], max_new_tokens=1, stop=[])[0].token_ids[0]
    assert runtime().generate([[5, 6, 7]], max_new_tokens=5, stop=[first]) == [Generation((), "", True)]


def test_special_tokens_are_kept_in_the_ids_and_left_out_of_the_text() -> None:
    word = TOKENIZER.encode("Hello", add_special_tokens=False)
    made = runtime()._generation([TOKENIZER.pad_token_id, *word, EOS, 5], [EOS])
    assert made == Generation((TOKENIZER.pad_token_id, *word), "Hello", True)


def test_the_models_own_generation_settings_do_not_apply() -> None:
    model = tiny_model(TOKENIZER)
    expected = runtime(model).generate(prompts(), max_new_tokens=6, stop=[EOS])
    settings_of_its_own = {"do_sample": True, "temperature": 0.1, "top_k": 3, "repetition_penalty": 5.0, "num_beams": 2}
    for key, value in settings_of_its_own.items():
        setattr(model.generation_config, key, value)
    model.generation_config.eos_token_id = expected[0].token_ids[1]
    assert runtime(model).generate(prompts(), max_new_tokens=6, stop=[EOS]) == expected


def test_progress_counts_up_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.BATCH_ROWS, "cpu", 4)
    seen: list[int] = []
    runtime().generate(prompts(9), max_new_tokens=1, stop=[EOS], progress=seen.append)
    assert seen == [4, 8, 9]


def test_nothing_asked_is_nothing_answered() -> None:
    assert runtime().generate([], max_new_tokens=3, stop=[EOS]) == []
    assert runtime().log_likelihoods([]) == []


@given(
    lengths=st.lists(st.integers(1, 5000), max_size=80),
    extra=st.integers(0, 300),
)
@settings(max_examples=60, deadline=None)
def test_batches_hold_each_position_once_and_keep_to_their_size(lengths: list[int], extra: int) -> None:
    batches = list(runtime()._batches(lengths, extra=extra))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    limit = module.BATCH_TOKENS["cpu"] * (2 if extra else 1)
    for batch in batches:
        width = max(lengths[position] for position in batch) + extra
        assert len(batch) == 1 or (len(batch) * width <= limit and len(batch) <= module.BATCH_ROWS["cpu"])
    widths = [lengths[position] for batch in batches for position in batch]
    assert widths == sorted(widths, reverse=True)


# -------------------------------------------------------------------------------------------------- likelihoods


@pytest.mark.usefixtures("batches")
def test_log_likelihoods_are_the_sums_over_marked_tokens() -> None:
    model = tiny_model(TOKENIZER)
    expected = [manual_log_likelihood(model, ids, marks) for ids, marks in rows()]
    assert runtime(model).log_likelihoods(rows()) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert min(expected) < -100


def test_the_first_token_and_unmarked_ones_do_not_count() -> None:
    ids = [5, 6, 7]
    model = runtime()
    assert model.log_likelihoods([([5], [True]), (ids, [False] * 3)]) == [0.0, 0.0]
    (whole, rest) = model.log_likelihoods([(ids, [True] * 3), (ids, [False, True, True])])
    assert whole == rest < 0


def test_numpy_rows_are_taken_too() -> None:
    arrays = [(np.array(ids, dtype=np.int32), np.array(marks)) for ids, marks in rows()]
    assert runtime().log_likelihoods(arrays) == runtime().log_likelihoods(rows())  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [{}, {"use_dora": True}, {"modules_to_save": ("lm_head",)}])
def test_without_its_adapter_a_model_is_its_base_exactly(method: dict[str, Any]) -> None:
    model = tuned_model(**method)
    base = runtime().log_likelihoods(rows())
    assert runtime(model, adapter=False).log_likelihoods(rows()) == base
    tuned = runtime(model).log_likelihoods(rows())
    assert max(abs(a - b) for a, b in zip(tuned, base, strict=True)) > 0.1
    # and the adapter is back afterwards
    assert runtime(model).log_likelihoods(rows()) == tuned


def test_log_probabilities_are_those_of_every_position() -> None:
    model = tuned_model()
    found = runtime(model).log_probabilities([5, 6, 7, 8])
    assert found.shape == (4, len(TOKENIZER))
    assert found.dtype == np.float32
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([[5, 6, 7, 8]])).logits[0], dim=-1)
    assert np.array_equal(found, expected.numpy())
    plain = runtime(model, adapter=False).log_probabilities([5, 6, 7, 8])
    assert np.array_equal(plain, runtime().log_probabilities([5, 6, 7, 8]))
    assert float(np.abs(plain - found).max()) > 0.1


# ------------------------------------------------------------------------------------------------ state and size


def test_answering_leaves_the_model_as_it_was() -> None:
    model = tuned_model(dropout=0.5).train()
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for adapter in (True, False):
        one = runtime(model, adapter=adapter)
        # Dropout would make two answers differ
        assert one.log_likelihoods(rows()) == one.log_likelihoods(rows())
        one.generate(prompts(2), max_new_tokens=2, stop=[EOS])
        assert model.training
        assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == learning
    model(torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    assert len(learning) == 28


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens", "model.norm"])
def test_modules_trained_whole_answer_on_a_bfloat16_base(name: str) -> None:
    model = tiny_model(TOKENIZER, tie_word_embeddings=False).to(torch.bfloat16)
    tuned = attach(model, LoraMethod(rank=4, modules_to_save=(name,))).eval()
    assert {p.dtype for p in tuned.parameters() if p.requires_grad} == {torch.float32}
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        logits = tuned(torch.tensor([[5, 6, 7, 8]])).logits[0].float()
    found = runtime(tuned).log_probabilities([5, 6, 7, 8])
    np.testing.assert_allclose(found, torch.log_softmax(logits, dim=-1).numpy(), atol=1e-2)
    assert len(runtime(tuned).generate([[5, 6, 7]], max_new_tokens=3, stop=[])[0].token_ids) == 3
    base = runtime(tiny_model(TOKENIZER, tie_word_embeddings=False).to(torch.bfloat16))
    off = runtime(tuned, adapter=False)
    assert np.array_equal(off.log_probabilities([5, 6, 7, 8]), base.log_probabilities([5, 6, 7, 8]))


def test_size_is_that_of_the_answering_weights() -> None:
    base = 4 * sum(parameter.numel() for parameter in tiny_model(TOKENIZER).parameters())
    assert runtime().size_bytes() == base == 406784
    assert runtime(tiny_model(TOKENIZER).to(torch.bfloat16)).size_bytes() == base // 2
    for method in ({}, {"use_dora": True}, {"modules_to_save": ("embed_tokens",)}):
        model = tuned_model(**method)
        adapter = 4 * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        assert adapter >= 4 * 8192
        assert runtime(model).size_bytes() == base + adapter
        assert runtime(model, adapter=False).size_bytes() == base


# ---------------------------------------------------------------------------------- continuations, stop texts, sharing


def families(seed: int = 0, *, common: int = 0) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Prompts of unlike lengths, some starting alike, with one to five continuations of one to six tokens."""
    generator = np.random.default_rng(seed)
    start = generator.integers(5, 400, common).tolist()
    asked = [start + prompt for prompt in prompts(7, seed)]
    said = [
        [generator.integers(5, 400, length).tolist() for length in generator.integers(1, 7, 1 + number % 5)]
        for number in range(7)
    ]
    return asked, said


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("common", [0, 20])
def test_continuations_are_scored_as_rows_of_their_own(share: bool, common: int) -> None:
    model = tiny_model(TOKENIZER)
    asked, said = families(common=common)
    found = runtime(model, share=share).choice_log_likelihoods(asked, said)
    expected = [
        [manual_log_likelihood(model, [*prompt, *one], [False] * len(prompt) + [True] * len(one)) for one in those]
        for prompt, those in zip(asked, said, strict=True)
    ]
    assert [len(those) for those in found] == [1, 2, 3, 4, 5, 1, 2]
    for mine, its in zip(found, expected, strict=True):
        assert mine == pytest.approx(its, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("share", [True, False])
def test_the_greedy_continuation_is_told_from_others(share: bool) -> None:
    model = tiny_model(TOKENIZER)
    asked = prompts(5)
    likeliest = [list(one) for one in one_by_one(model, asked, 4, [])]
    others = [[*one[:-1], 7 if one[-1] != 7 else 8] for one in likeliest]
    given = [[one, other, one[:1]] for one, other in zip(likeliest, others, strict=True)]
    found = runtime(model, share=share).score_continuations(asked, given)
    assert [[one.greedy for one in those] for those in found] == [[True, False, True]] * 5
    assert all(those[0].log_likelihood > those[1].log_likelihood for those in found)


def test_nothing_can_be_scored_after_or_of_no_token() -> None:
    assert runtime().score_continuations([[5]], [[]]) == [[]]
    assert runtime().score_continuations([], []) == []
    for asked, said in (([[]], [[[5]]]), ([[5]], [[[]]])):
        with pytest.raises(ValueError, match="need a token at least"):
            runtime().score_continuations(asked, said)


def test_sharing_reads_a_common_start_once() -> None:
    asked, said = families(common=40)
    model = tiny_model(TOKENIZER)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"].numel()), with_kwargs=True)
    runtime(model).score_continuations(asked, said)
    together = sum(seen)
    seen.clear()
    runtime(model, share=False).score_continuations(asked, said)
    assert together < sum(seen) / 2


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("common", [0, 20])
def test_answers_of_prompts_that_start_alike_are_those_of_one_at_a_time(common: int) -> None:
    model = tiny_model(TOKENIZER)
    asked, _ = families(3, common=common)
    free = one_by_one(model, asked, 9, [])
    stops = sorted({free[0][3], free[4][5], free[2][1]})
    answers = runtime(model).generate(asked, max_new_tokens=9, stop=stops)
    assert [answer.token_ids for answer in answers] == one_by_one(model, asked, 9, stops)
    assert len({len(answer.token_ids) for answer in answers}) > 1


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), longest=st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_rows_may_come_and_go_while_others_are_answered(seed: int, rows: int, longest: int) -> None:
    model = tiny_model(TOKENIZER)
    asked = prompts(8, seed)
    stops = sorted({one[-1] for one in one_by_one(model, asked[::2], longest, [])})
    expected = one_by_one(model, asked, longest, stops)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module.BATCH_ROWS, "cpu", rows)
        answers = runtime(model).generate(asked, max_new_tokens=longest, stop=stops)
    assert [answer.token_ids for answer in answers] == expected


@pytest.mark.parametrize("plain", [True, False])
def test_stop_texts_end_answers_before_them(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not plain:
        monkeypatch.setattr(module, "takes_rows", lambda _: False)
    asked = prompts(6)
    free = runtime().generate(asked, max_new_tokens=10, stop=[])
    until = [free[0].text[3:5], free[3].text[4:6]]
    assert all(until)
    answers = runtime().generate(asked, max_new_tokens=10, stop=[], until=until)
    assert any(len(answer.token_ids) < 10 for answer in answers)
    for whole, answer in zip(free, answers, strict=True):
        places = [whole.text.find(text) for text in until if text in whole.text]
        assert answer.ended == bool(places)
        assert answer.text == (whole.text[: min(places)] if places else whole.text)
        assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]


def test_models_with_windows_of_attention_answer_by_the_librarys_own_decoding() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=8, max_position_embeddings=512, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    assert not module.takes_rows(model)
    assert module.takes_rows(tiny_model(TOKENIZER))
    assert module.takes_rows(tuned_model())
    asked, said = families(common=20)
    answers = runtime(model).generate(asked, max_new_tokens=6, stop=[EOS])
    assert [answer.token_ids for answer in answers] == one_by_one(model, asked, 6, [EOS])
    found = runtime(model).choice_log_likelihoods(asked, said)
    assert found[1][0] == pytest.approx(
        manual_log_likelihood(model, [*asked[1], *said[1][0]], [False] * len(asked[1]) + [True] * len(said[1][0])),
        abs=1e-4,
    )
