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


def contestants(*given: dict[str, Any]) -> dict[str, Any]:
    return {"evaluate": {"contestants": list(given)}}


def endpoint(**settings: Any) -> dict[str, Any]:
    return {"kind": "endpoint", "name": "big", "url": "http://h/v1", "model": "m", **settings}


JUDGE = {"url": "http://h/v1", "model": "m"}
PRETRAIN = {"objective": {"kind": "pretrain"}}
NO_VALIDATION = data(split={"validation": 0})


def tasks(*entries: dict[str, Any], **evaluate: Any) -> dict[str, Any]:
    return {"evaluate": {"tasks": list(entries), **evaluate}}


def data_task(**settings: Any) -> dict[str, Any]:
    return {"kind": "data", "test": "/here/quiz.jsonl", **settings}


BROKEN: list[tuple[dict[str, Any], str]] = [
    (tasks(), "evaluate.tasks is empty: nothing is asked\n    -> name a task, or remove the key"),
    (
        tasks(data_task(), data_task(format="qa")),
        "evaluate.tasks.1 is called 'quiz', as evaluate.tasks.0 is\n    -> set evaluate.tasks.1.name to another name",
    ),
    (
        tasks({"kind": "held-out"}, data_task(name="held-out")),
        "evaluate.tasks.1 is called 'held-out', as the recipe's own test rows are",
    ),
    (tasks({"kind": "held-out"}, {"kind": "held-out"}), "evaluate.tasks.1 asks the same as evaluate.tasks.0"),
    (tasks({"kind": "lm_eval", "task": "quiz"}, data_task()), "evaluate.tasks.1 is called 'quiz'"),
    (
        tasks(data_task(), max_items=5),
        "evaluate.max_items has no effect: it is of the held-out task, which evaluate.tasks leaves out\n"
        "    -> write max_items under the task that it is meant for",
    ),
    (
        tasks(data_task(scorer="likelihood")),
        "evaluate.tasks.0.scorer: likelihood takes the likeliest of an item's choices, and there are none\n"
        "    -> name them under evaluate.tasks.0.choices",
    ),
    (
        tasks(data_task(choices=["a", "b"], scorer="exact")),
        "evaluate.tasks.0.scorer: exact judges written answers, and with choices none is written\n"
        "    -> remove evaluate.tasks.0.choices, or write scorer: likelihood or likelihood_norm",
    ),
    (
        tasks(data_task(choices="options", max_new_tokens=5)),
        "evaluate.tasks.0.max_new_tokens has no effect with choices",
    ),
    (tasks(data_task(choices=["a"])), "evaluate.tasks.0.choices has 1 of the two that there have to be"),
    (tasks(data_task(fields=["a"], scorer="exact")), "evaluate.tasks.0.fields has no effect with scorer: exact"),
    (tasks(data_task(scorer="json_schema")), "evaluate.tasks.0: json_schema checks answers against a JSON Schema"),
    (
        tasks(data_task(seed=3)),
        "evaluate.tasks.0.seed has no effect: neither shots nor max_items draws anything\n"
        "    -> remove evaluate.tasks.0.seed",
    ),
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
        {"train": {"keep": "last", "max_forgetting": 0.1}},
        "train.max_forgetting has no effect with keep: last\n    -> write keep: best, or remove train.max_forgetting",
    ),
    (
        NO_VALIDATION | {"train": {"keep": "best"}},
        "train.keep has no effect: there are no validation rows\n"
        "    -> give data.validation or a data.split.validation above 0, or remove it",
    ),
    ({"evaluate": {"scorer": "exact", "fields": ["a"]}}, "evaluate.fields has no effect with scorer: exact"),
    ({"evaluate": {"allow_code_execution": True}}, "evaluate.allow_code_execution has no effect with scorer: auto"),
    ({"evaluate": {"schema_file": "/s.json"}}, "evaluate.schema_file has no effect with scorer: auto"),
    (
        {"evaluate": {"scorer": "json_schema"}},
        "scorer json_schema checks answers against a JSON Schema, and evaluate.schema_file gives none\n"
        "    -> give both scorer: json_schema and the schema's file, or neither",
    ),
    ({"evaluate": {"scorer": "perplexity", "max_new_tokens": 5}}, "evaluate.max_new_tokens has no effect"),
    ({"evaluate": {"scorer": "bits_per_byte", "max_new_tokens": 5}}, "evaluate.max_new_tokens has no effect"),
    (PRETRAIN | {"evaluate": {"max_new_tokens": 5}}, "evaluate.max_new_tokens has no effect"),
    (
        contestants(endpoint(name="tuned")),
        "evaluate.contestants.0.name is 'tuned', a name that is taken\n    -> give it another name",
    ),
    (
        contestants(endpoint(), {"kind": "export", "name": "big"}),
        "evaluate.contestants.1.name is 'big', as is evaluate.contestants.0.name\n"
        "    -> give each contestant its own name",
    ),
    (
        contestants({"kind": "model", "name": "a", "base": "/here/x.gguf", "revision": "main"}),
        "evaluate.contestants.0.revision has no effect: '/here/x.gguf' is not a hub model",
    ),
    (
        contestants({"kind": "model", "name": "a", "base": "org/rival", "trust_remote_code": True}),
        "trust_remote_code runs whatever code 'org/rival' holds on the day\n"
        "    -> set evaluate.contestants.0.revision to the full commit hash (40 characters) whose code you have read",
    ),
    (
        contestants(endpoint(price_per_million_input=1)),
        "evaluate.contestants.0.price_per_million_input has no effect without the price of the output\n"
        "    -> give evaluate.contestants.0.price_per_million_output as well",
    ),
    (
        contestants(endpoint(price_per_million_output=1)),
        "evaluate.contestants.0.price_per_million_output has no effect without the price of the input",
    ),
    (
        {"evaluate": {"judge": JUDGE | {"currency": "EUR"}}},
        "evaluate.judge.currency has no effect: there are no prices\n    -> give both prices, or remove it",
    ),
    (
        contestants(endpoint(parameters={"stream": True})),
        "evaluate.contestants.0.parameters.stream has no effect: stream is set by the evaluation\n    -> remove stream",
    ),
    (
        {"evaluate": {"judge": JUDGE | {"contestants": ["big"]}}},
        "evaluate.judge.contestants names 'big', who does not take part beside base\n    -> name tuned",
    ),
    (
        {"evaluate": {"judge": JUDGE, "scorer": "perplexity"}},
        "evaluate.judge has no effect: raw text is measured without answers\n    -> remove it",
    ),
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
    tasks({"kind": "held-out"}, data_task(), data_task(name="other"), max_items=5),
    tasks(
        data_task(choices=["a", "b"], seed=1, shots=2), data_task(name="b", scorer="tests"), allow_code_execution=True
    ),
    tasks(data_task(choices="options", scorer="likelihood_norm", max_items=5, seed=1)),
    PRETRAIN | data(system="Be short.") | tasks({"kind": "held-out"}, data_task()),
    PRETRAIN | {"evaluate": {"scorer": "bits_per_byte"}},
    PRETRAIN | {"evaluate": {"scorer": "perplexity"}},
    {"evaluate": {"scorer": "json_schema", "schema_file": "/s.json"}},
    {"evaluate": {"scorer": "/own.py:score", "allow_code_execution": True}},
    {"method": {"kind": "qlora", "quantization": "int8"}},
    {"method": {"kind": "qlora", "double_quantization": False}},
    {"train": {"steps": 5}},
    {"train": {"epochs": 2, "steps": None}},
    NO_VALIDATION,
    NO_VALIDATION | {"train": {"keep": "last"}},
    {"train": {"early_stop": 2, "eval_every": 5, "keep": "best"}},
    {"evaluate": {"scorer": "json_fields", "fields": ["a"]}},
    {"evaluate": {"fields": ["a"], "max_new_tokens": 5}},
    contestants(endpoint(), {"kind": "model", "name": "a", "base": "org/rival", "revision": "main"}),
    contestants({"kind": "model", "name": "a", "base": "org/x", "revision": COMMIT, "trust_remote_code": True}),
    contestants(endpoint(price_per_million_input=0, price_per_million_output=1, currency="EUR")),
    {"evaluate": {"judge": JUDGE | {"contestants": ["tuned", "big"]}, "contestants": [endpoint()]}},
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
    assert len(RULES) == 30


def test_rules_are_told_together() -> None:
    settings = {"train": {"steps": 5, "epochs": 1.0, "early_stop": 3}, **NO_VALIDATION}
    assert len(findings(Recipe.model_validate(with_settings(settings)))) == 2


def test_a_rule_is_not_judged_on_a_section_that_cannot_be_read() -> None:
    settings = {"train": {"early_stop": 3}, "data": {"split": {"validation": 0, "tset": 0.1}}}
    with pytest.raises(FinetuneError) as caught:
        recipe_from_dict(with_settings(settings))
    assert [one.what for one in caught.value.problems] == ["unknown key 'tset' in data.split"]
