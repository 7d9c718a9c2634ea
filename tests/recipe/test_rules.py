from __future__ import annotations

from typing import Any

import pytest

from finetune.errors import FinetuneError
from finetune.recipe import Recipe, rule_problems
from finetune.recipe.reader import recipe_from_dict
from finetune.recipe.rules import RULES, findings
from finetune.recipe.tree import Source as At
from finetune.recipe.tree import lay_over, read_dict

BASE = {"model": {"base": "org/model"}, "data": {"train": "/rows.jsonl"}}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def with_settings(*settings: dict[str, Any]) -> dict[str, Any]:
    tree = read_dict(BASE, At("x"))
    for one in settings:
        tree = lay_over(tree, read_dict(one, At("x")), {})
    return tree.values


def data(**settings: Any) -> dict[str, Any]:
    return {"data": settings}


PRETRAIN = {"objective": {"kind": "pretrain"}}
NO_VALIDATION = data(split={"validation": 0})

BROKEN: list[tuple[dict[str, Any], str]] = [
    (
        {"export": [{"kind": "gguf"}, {"kind": "merged"}, {"kind": "gguf", "quantization": "q8_0", "max_kl": 1}]},
        "export.2 makes the same file as export.0: gguf in q8_0\n    -> remove one of the two",
    ),
    (
        {"model": {"trust_remote_code": True}},
        "trust_remote_code runs whatever code 'org/model' holds on the day\n"
        "    -> set model.revision to the full commit hash (40 characters) whose code you have read",
    ),
    ({"model": {"trust_remote_code": True, "revision": "main"}}, "trust_remote_code runs whatever code"),
    ({"model": {"trust_remote_code": True, "revision": COMMIT[:-1]}}, "trust_remote_code runs whatever code"),
    (
        {"model": {"base": "/here/tiny.gguf", "revision": "main"}},
        "model.revision has no effect: '/here/tiny.gguf' is not a hub model\n    -> remove model.revision",
    ),
    ({"model": {"base": "package:a/b.gguf", "revision": "x"}}, "model.revision has no effect"),
    (
        {"model": {"attention": "flash_attention_2", "dtype": "float32"}},
        "flash_attention_2 cannot compute in float32\n    -> set model.dtype to bfloat16, or model.attention to sdpa",
    ),
    (
        data(template={"prompt": "x", "completion": "y"}),
        "data.template has no effect with format: auto\n    -> write format: template, or remove data.template",
    ),
    (data(format="template"), "format: template needs data.template"),
    (
        data(checks={"error": ["leaks", "languages"], "ignore": ["languages"]}),
        "data.checks.error has no effect on 'languages': data.checks.ignore names it too\n"
        "    -> remove it from one of the two",
    ),
    (
        data(checks={"ignore": ["over_long"]}),
        "data.checks.ignore has no effect on 'over_long': data.overlong: error refuses such rows\n"
        "    -> remove it, or set data.overlong to truncate_prompt or drop",
    ),
    (
        data(format="alpaca", instruction="Sort it."),
        "data.instruction has no effect with format: alpaca\n"
        "    -> write format: classification, or remove data.instruction",
    ),
    (data(format="messages", sample={"per_label": 3}), "data.sample.per_label has no effect with format: messages"),
    (
        data(format="alpaca", answer_is="letter"),
        "data.answer_is has no effect with format: alpaca\n"
        "    -> write format: multiple_choice, or remove data.answer_is",
    ),
    (
        data(train=[{"path": "/a", "format": "qa", "instruction": "Sort it."}]),
        "data.train.0.instruction has no effect with format: qa\n"
        "    -> write format: classification, or remove data.train.0.instruction",
    ),
    (
        data(train=[{"path": "/a", "template": {"prompt": "x", "completion": "y"}}, "/b"]),
        "data.train.0.template has no effect with format: auto\n"
        "    -> write format: template, or remove data.train.0.template",
    ),
    (data(train=[{"path": "/a", "format": "template"}]), "format: template needs data.train.0.template"),
    (
        data(test=[{"path": "/a", "weight": 2.0}]),
        "data.test.0.weight has no effect: only training rows are drawn\n    -> remove it",
    ),
    (
        data(validation="/v", split={"validation": 0.2}),
        "data.split.validation has no effect: data.validation names the rows\n    -> remove one of the two",
    ),
    (data(test="/t", split={"test": 0.1}), "data.split.test has no effect: data.test names the rows"),
    (data(split={"test": 0.1, "test_ids": "/i"}), "data.split.test has no effect: data.split.test_ids names the rows"),
    (data(test="/t", split={"test_ids": "/i"}), "data.split.test_ids has no effect: data.test names the rows"),
    (
        data(split={"validation": 0.5, "test": 0.5}),
        "split sets aside 0.5 for validation and 0.5 for test, which leaves no rows to train on\n"
        "    -> make them smaller: together less than 1",
    ),
    (data(split={"validation": 0.95}), "split sets aside 0.95 for validation and 0.1 for test"),
    (data(sample={"seed": 3}), "data.sample.seed has no effect: all rows are used"),
    (
        data(format="text"),
        "format: text has no answers, which objective sft learns\n    -> write objective: {kind: pretrain}",
    ),
    (
        data(train=[{"path": "/a", "format": "text"}, {"path": "/b", "format": "completion"}]),
        "format: text has no answers, which objective sft learns",
    ),
    (
        data(train=[{"path": "/a", "weight": 2.0}, {"path": "/b"}], sample={"seed": 3}),
        "data.sample.seed has no effect: all rows are used",
    ),
    (
        PRETRAIN | data(train=[{"path": "/a", "format": "text"}, {"path": "/b", "format": "alpaca"}]),
        "objective pretrain learns raw text, not format: alpaca",
    ),
    (PRETRAIN | data(format="alpaca"), "objective pretrain learns raw text, not format: alpaca"),
    (PRETRAIN | data(system="Be brief."), "data.system has no effect with objective pretrain"),
    (PRETRAIN | {"model": {"chat_template": "/x.jinja"}}, "model.chat_template has no effect with objective pretrain"),
    (PRETRAIN | {"evaluate": {"scorer": "exact"}}, "scorer exact needs answers, and objective pretrain has raw text"),
    (
        {"method": {"kind": "qlora", "quantization": "int8", "double_quantization": True}},
        "method.double_quantization has no effect with quantization: int8\n    -> remove it, or use nf4",
    ),
    (
        {"train": {"steps": 5, "epochs": 1.0}},
        "train.epochs has no effect: train.steps says how long to train\n    -> remove one of the two",
    ),
    (NO_VALIDATION | {"train": {"early_stop": 2}}, "train.early_stop has no effect: there are no validation rows"),
    (NO_VALIDATION | {"train": {"eval_every": 2}}, "train.eval_every has no effect: there are no validation rows"),
    (
        NO_VALIDATION | {"train": {"keep": "best"}},
        "train.keep has no effect: there are no validation rows\n"
        "    -> give data.validation or a data.split.validation above 0, or remove it",
    ),
    ({"evaluate": {"scorer": "exact", "fields": ["a"]}}, "evaluate.fields has no effect with scorer: exact"),
    ({"evaluate": {"allow_code_execution": True}}, "evaluate.allow_code_execution has no effect with scorer: auto"),
    ({"evaluate": {"scorer": "bits_per_byte", "max_new_tokens": 5}}, "evaluate.max_new_tokens has no effect"),
    (PRETRAIN | {"evaluate": {"max_new_tokens": 5}}, "evaluate.max_new_tokens has no effect"),
]

WHOLE: list[dict[str, Any]] = [
    {},
    {"model": {"trust_remote_code": True, "revision": COMMIT}},
    {"model": {"trust_remote_code": True, "base": "/local"}},
    {"model": {"revision": "main"}},
    {"model": {"base": "/here/tiny.gguf", "revision": None}},
    {"model": {"attention": "flash_attention_2"}},
    data(format="template", template={"prompt": "x", "completion": "y"}),
    data(instruction="Sort it.", sample={"per_label": 3, "seed": 1}),
    data(format="classification", instruction="Sort it.", sample={"per_label": 3}),
    data(validation="/v", test="/t"),
    data(validation="/v", split={"validation": 0, "test": 0.95}),
    data(test="/t", split={"validation": 0.95}),
    data(split={"test_ids": "/i", "validation": 0.95}),
    PRETRAIN | data(format="text"),
    PRETRAIN | data(format="completion"),
    data(train=[{"path": "/a", "format": "text"}, {"path": "/b", "format": "kto", "weight": 2}, "/c"]),
    data(train=[{"path": "/a", "weight": 0.5}], sample={"seed": 3}),
    data(train=[{"path": "/a"}], format="tags", instruction="Find them."),
    data(format="multiple_choice", answer_is="text"),
    PRETRAIN | {"evaluate": {"scorer": "bits_per_byte"}},
    {"method": {"kind": "qlora", "quantization": "int8"}},
    {"method": {"kind": "qlora", "double_quantization": False}},
    {"train": {"steps": 5}},
    {"train": {"epochs": 2, "steps": None}},
    NO_VALIDATION,
    NO_VALIDATION | {"train": {"keep": "last"}},
    {"train": {"early_stop": 2, "eval_every": 5, "keep": "best"}},
    {"evaluate": {"scorer": "json_fields", "fields": ["a"]}},
    {"evaluate": {"fields": ["a"], "max_new_tokens": 5}},
]


@pytest.mark.parametrize(("settings", "message"), BROKEN)
def test_broken_rule(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        recipe_from_dict(with_settings(settings))
    (only,) = caught.value.problems
    assert str(only).startswith(f"<python>: {message}")


@pytest.mark.parametrize("settings", WHOLE)
def test_kept_rules(settings: dict[str, Any]) -> None:
    assert rule_problems(recipe_from_dict(with_settings(settings))) == []


def test_every_rule_is_broken_by_some_case() -> None:
    recipes = [Recipe.model_validate(with_settings(settings)) for settings, _ in BROKEN]
    unbroken = {rule.__name__ for rule in RULES if not any(list(rule(recipe)) for recipe in recipes)}
    assert unbroken == set()
    assert len(RULES) == 18


def test_rules_are_told_together() -> None:
    settings = {"train": {"steps": 5, "epochs": 1.0, "early_stop": 3}, **NO_VALIDATION}
    assert len(findings(Recipe.model_validate(with_settings(settings)))) == 2


def test_a_rule_is_not_judged_on_a_section_that_cannot_be_read() -> None:
    settings = {"train": {"early_stop": 3}, "data": {"split": {"validation": 0, "tset": 0.1}}}
    with pytest.raises(FinetuneError) as caught:
        recipe_from_dict(with_settings(settings))
    assert [one.what for one in caught.value.problems] == ["unknown key 'tset' in data.split"]
