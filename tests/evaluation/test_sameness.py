"""Contestants that were not asked the same are refused, each with what differs; what may differ is said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from finetune.errors import FinetuneError
from finetune.evaluation.compare import Answer, Item, TaskResult, compare
from finetune.evaluation.sameness import Circumstances, circumstances_of, sameness, tokenizer_hash
from finetune.evaluation.scoring.text_scorers import exact_scorer
from finetune.runtimes import TransformersRuntime
from tests.tiny import tiny_model, tiny_tokenizer

HOW = Circumstances(
    template="a" * 64,
    tokenizer="b" * 64,
    dtype="bfloat16",
    batch="64 rows",
    versions={"torch": "2.13.0", "transformers": "5.23.0"},
)


def result_of(*names: str, task: str = "held-out", asked: Mapping[str, str] | None = None) -> TaskResult:
    """Three items; a contestant's prompts are those of base unless `asked` says another word for them."""
    items = [Item(id=f"{n}", reference="yes", prompt_text="?", asked_hash=f"asked {n}") for n in range(3)]
    answers = {
        name: [
            Answer(
                item_id=item.id,
                prompt_hash=f"{(asked or {}).get(name, 'prompt')} {item.id}",
                text="yes",
                ended=True,
                tokens=1,
                score=1.0,
            )
            for item in items
        ]
        for name in names
    }
    return compare(task, exact_scorer(), items, answers, baseline=None, confidence=0.95)


def problems(results: list[TaskResult], circumstances: Mapping[str, Circumstances]) -> list[str]:
    with pytest.raises(FinetuneError) as caught:
        sameness(results, circumstances)
    return [problem.what for problem in caught.value.problems]


def test_equal_circumstances_are_proven() -> None:
    results = [result_of("base", "tuned"), result_of("base", "tuned", task="law")]
    found = sameness(results, {"base": HOW, "tuned": HOW})
    assert found.prompts["base"] == found.prompts["tuned"] != found.items
    assert len(found.items) == 64
    assert found.sentence == (
        f"base and tuned answered the same prompts of the same 6 items (SHA-256 {found.items[:12]}), with equal chat "
        "template, tokenizer, batches, versions of the libraries and number format (bfloat16)."
    )
    made = json.loads(json.dumps(found.as_json()))
    assert made["template"] == {"base": "a" * 64, "tuned": "a" * 64}
    assert made["dtype"] == {"base": "bfloat16", "tuned": "bfloat16"}
    assert made["versions"] == {"torch": "2.13.0", "transformers": "5.23.0"}
    assert sameness([result_of("base", "tuned")], {"base": HOW, "tuned": HOW}).items != found.items


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("template", "c" * 64, f"chat template: SHA-256 {'a' * 12} and SHA-256 {'c' * 12}"),
        ("tokenizer", "", f"tokenizer: SHA-256 {'b' * 12} and none"),
        ("dtype", "float32", "number format: bfloat16 and float32"),
        ("batch", "1 row", "batches: 64 rows and 1 row"),
        ("versions", {"torch": "2.12.0"}, "versions of the libraries: torch 2.13.0 and 2.12.0, "
         "transformers 5.23.0 and none"),
    ],
)  # fmt: skip
def test_base_and_tuned_differ_in_nothing_but_the_tuning(key: str, value: Any, what: str) -> None:
    changed: dict[str, Any] = {key: value}
    other = replace(HOW, **changed)
    assert problems([result_of("base", "tuned")], {"base": HOW, "tuned": other}) == [
        f"'tuned' and 'base' differ in their {what}"
    ]


def test_files_may_have_another_format_but_no_other_template() -> None:
    results = [result_of("base", "tuned", "small.gguf")]
    small = replace(HOW, dtype="q8_0", batch="one row")
    found = sameness(results, {"base": HOW, "tuned": HOW, "small.gguf": small})
    assert found.sentence.endswith(
        "; small.gguf got the same prompts and differs in number format (bfloat16 and q8_0) and batches (64 rows and "
        "one row)."
    )
    foreign = replace(small, template="c" * 64, tokenizer="d" * 64)
    with pytest.raises(FinetuneError) as caught:
        sameness(results, {"base": HOW, "tuned": HOW, "small.gguf": foreign})
    assert [problem.what for problem in caught.value.problems] == [
        f"'small.gguf' and 'base' differ in their chat template: SHA-256 {'a' * 12} and SHA-256 {'c' * 12}",
        f"'small.gguf' and 'base' differ in their tokenizer: SHA-256 {'b' * 12} and SHA-256 {'d' * 12}",
    ]
    assert {problem.fix for problem in caught.value.problems} == {"leave 'small.gguf' out of the comparison"}


def test_whoever_has_own_words_is_given_the_same_conversations() -> None:
    api = Circumstances(template="", tokenizer="", dtype="", batch="", versions={}, own_words=True)
    together = {"base": HOW, "tuned": HOW, "api": api}
    results = [result_of("base", "tuned", "api", asked={"api": "asked"})]
    found = sameness(results, together)
    assert found.prompts["api"] != found.prompts["base"]
    assert set(found.template) == {"base", "tuned"}
    assert found.sentence.endswith("; api got the same conversations, written in its own template and tokens.")
    # Prompts of the run's tokens are no conversations
    assert problems([result_of("base", "tuned", "api")], together) == [
        "'api' was given other conversations than 'base' on 3 of 3 items: '0', '1', '2'"
    ]


def test_other_prompts_are_refused_with_their_items() -> None:
    result = result_of("base", "tuned", asked={"tuned": "asked"})
    assert problems([result], {"base": HOW, "tuned": HOW}) == [
        "'tuned' was given other prompts than 'base' on 3 of 3 items: '0', '1', '2'"
    ]
    short = replace(result_of("base", "tuned"), contestants={"base": result.contestants["base"], "tuned": []})
    assert problems([short], {"base": HOW, "tuned": HOW}) == ["'tuned' did not answer the same items as 'base'"]


def test_a_contestant_that_does_not_take_part_in_a_task_is_judged_by_the_others() -> None:
    results = [result_of("base", "tuned", "small"), result_of("base", "tuned", task="law")]
    found = sameness(results, {"base": HOW, "tuned": HOW, "small": HOW})
    assert found.prompts["small"] == sameness(results[:1], {"base": HOW, "tuned": HOW}).prompts["base"]


def test_circumstances_of_a_model() -> None:
    tokenizer = tiny_tokenizer()
    runtime = TransformersRuntime(tiny_model(tokenizer), tokenizer, name="base")
    found = circumstances_of(runtime, tokenizer, {"torch": "2"})
    assert (found.dtype, found.own_words) == ("float32", False)
    assert found.batch.endswith("on cpu")
    assert found == circumstances_of(runtime, tiny_tokenizer(), {"torch": "2"})
    assert len(found.template) == len(found.tokenizer) == 64
    other = circumstances_of(runtime, tiny_tokenizer("{{ messages[0]['content'] }}"), {"torch": "2"})
    assert other.template != found.template
    assert other.tokenizer == found.tokenizer != tokenizer_hash(tiny_tokenizer(add_bos=True))
    assert circumstances_of(runtime, tiny_tokenizer(None), {}).template == ""
