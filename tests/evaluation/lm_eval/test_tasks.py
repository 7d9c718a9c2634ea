"""Tasks of lm-eval: the figures are those of lm-eval's own `hf` model, and what would score 0 unseen is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval")
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from finetune.errors import FinetuneError
from finetune.evaluation.compare import verdict_sentence
from finetune.evaluation.lm_eval.engine import own_engine
from finetune.evaluation.lm_eval.model import RuntimeLM
from finetune.evaluation.lm_eval.preparing import prepare_lm_eval
from finetune.evaluation.lm_eval.task_files import read_task_file
from finetune.evaluation.lm_eval.tasks import answer_lm_eval, judge_lm_eval, run_lm_eval
from finetune.models import attach
from finetune.recipe.schema import LoraMethod
from finetune.recipe.tasks import LmEvalTask
from finetune.runtimes import TransformersRuntime, transformers_runtime
from tests.evaluation.lm_eval.lm_eval_files import (
    arc_rows,
    changed,
    sum_rows,
    write_arc,
    write_lines,
    write_sums,
    write_task,
)
from tests.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER)


def section(path: str, **settings: Any) -> LmEvalTask:
    return LmEvalTask(path=path, **settings)


def runtime(name: str = "base", **options: Any) -> TransformersRuntime:
    return TransformersRuntime(MODEL, TOKENIZER, name=name, **options)


def tuned_model() -> Any:
    model = attach(tiny_model(TOKENIZER), LoraMethod(rank=4)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def run(path: str, contestants: Any = None, **settings: Any) -> Any:
    asked = contestants or [runtime(), runtime("tuned")]
    return run_lm_eval(section(path, **settings), asked, TOKENIZER, context_length=512, confidence=0.95, seed=0)


def theirs(path: str, **options: Any) -> dict[str, Any]:
    """What lm-eval's own `hf` model says to the same task object."""
    given = {"batch_size": 64, "max_length": 512, **options}
    return evaluated(HFLM(pretrained=MODEL, tokenizer=TOKENIZER, device="cpu", **given), path)


def evaluated(lm: Any, path: str) -> dict[str, Any]:
    engine = own_engine(read_task_file(path))
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=[engine],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        fewshot_random_seed=0,
    )
    assert found is not None
    return dict(found)


def responses(found: dict[str, Any], name: str) -> list[list[tuple[float, bool]]]:
    return [[given[0] for given in sample["resps"]] for sample in found["samples"][name]]


# ------------------------------------------------------------------------------------------- the same as lm-eval's own


def test_likelihoods_are_those_of_lm_evals_own_model_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sums of float32 depend on how many rows are computed together, in either
    monkeypatch.setitem(transformers_runtime.BATCH_ROWS, "cpu", 1)
    path = write_arc(tmp_path, num_fewshot="2")
    expected = responses(theirs(path, batch_size=1), "arc_local")
    ours = responses(evaluated(RuntimeLM(runtime(share=False), TOKENIZER, context_length=512), path), "arc_local")
    assert ours == expected
    assert len(expected) == 12
    assert {len(choices) for choices in expected} == {4}


def test_reading_prompts_once_changes_no_choice(tmp_path: Path) -> None:
    path = write_arc(tmp_path, num_fewshot="2")
    their = theirs(path)
    ours = evaluated(RuntimeLM(runtime(), TOKENIZER, context_length=512), path)
    pairs = [
        (mine, its)
        for mine_all, its_all in zip(responses(ours, "arc_local"), responses(their, "arc_local"), strict=True)
        for mine, its in zip(mine_all, its_all, strict=True)
    ]
    assert len(pairs) == 48
    assert max(abs(mine[0] - its[0]) for mine, its in pairs) < 1e-4
    assert [mine[1] for mine, _ in pairs] == [its[1] for _, its in pairs]
    for metric in ("acc,none", "acc_norm,none"):
        assert ours["results"]["arc_local"][metric] == their["results"]["arc_local"][metric]


def test_answers_are_those_of_lm_evals_own_model(tmp_path: Path) -> None:
    path = write_sums(tmp_path, num_fewshot="1", doc_to_text='"{{question}} {{answer}}"')
    their, ours = theirs(path), evaluated(RuntimeLM(runtime(), TOKENIZER, context_length=512), path)
    texts = [sample["resps"] for sample in their["samples"]["sums"]]
    assert [sample["resps"] for sample in ours["samples"]["sums"]] == texts
    assert len({str(text) for text in texts}) > 3


def test_whole_texts_are_measured_as_lm_eval_does(tmp_path: Path) -> None:
    text = changed(
        "task: texts\ndataset_path: json\ntest_split: test\noutput_type: loglikelihood_rolling\n"
        'dataset_kwargs: {data_files: {test: test.jsonl}}\ndoc_to_text: ""\ndoc_to_target: "{{question}}"\n',
        metric_list="[{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]",
    )
    rows = [{"question": " ".join(row["question"] for row in arc_rows(1 + 3 * n, 10 * n))} for n in range(5)]
    path = write_task(tmp_path, text, rows, [])
    lm = RuntimeLM(runtime(), TOKENIZER, context_length=64)
    expected = [sample["resps"][0][0] for sample in theirs(path, max_length=64)["samples"]["texts"]]
    assert [sample["resps"][0][0] for sample in evaluated(lm, path)["samples"]["texts"]] == pytest.approx(
        expected, rel=1e-5
    )
    result = run(path)
    assert result.unit == "bits per byte"
    assert not result.higher_is_better
    assert all(answer.score > 0 for answer in result.contestants["base"])


def test_the_result_is_one_like_every_other(tmp_path: Path) -> None:
    model = tuned_model()
    contestants = [
        TransformersRuntime(model, TOKENIZER, name="base", adapter=False),
        TransformersRuntime(model, TOKENIZER, name="tuned"),
    ]
    seen: list[tuple[str, int, int]] = []
    result = run_lm_eval(
        section(write_arc(tmp_path), group_by="document", metric="acc_norm"),
        contestants,
        TOKENIZER,
        context_length=512,
        confidence=0.95,
        seed=0,
        watch=lambda name, done, total: seen.append((name, done, total)),
    )
    assert (result.task, result.scorer, result.n, result.health) == ("arc_local", "acc_norm", 12, {})
    assert seen == [("base", 48, 48), ("tuned", 48, 48)]
    assert result.comparison.groups == 6
    expected = theirs(write_arc(tmp_path))
    assert result.comparison.base == pytest.approx(expected["results"]["arc_local"]["acc_norm,none"])
    assert "on arc_local: acc_norm" in verdict_sentence(result)
    for answer, sample in zip(result.contestants["base"], expected["samples"]["arc_local"], strict=True):
        assert answer.detail["gold"] == sample["target"]
        assert sum(answer.detail["probabilities"]) == pytest.approx(1)
        assert answer.log_likelihood == pytest.approx(sample["resps"][sample["target"]][0][0], abs=1e-4)
        assert answer.text == sample["doc"]["choices"]["text"][answer.detail["chosen"]]


def test_contestants_may_answer_one_after_the_other(tmp_path: Path) -> None:
    asked = section(write_sums(tmp_path), name="adding", max_items=6, max_new_tokens=3, seed=4)
    task = prepare_lm_eval(asked, TOKENIZER, context_length=512)
    answers = {one: answer_lm_eval(task, runtime(one), TOKENIZER, context_length=512) for one in ("base", "tuned")}
    assert answers["base"] == answers["tuned"]
    result = judge_lm_eval(task, answers, confidence=0.95, seed=0)
    assert (result.task, result.n, result.health["base"].cut > 0) == ("adding", 6, True)
    assert max(answer.tokens for answer in answers["base"]) == 3
    assert [item.id for item in task.items] == [str(number) for number in task.numbers]
    assert task.numbers != tuple(range(6))
    assert prepare_lm_eval(asked, TOKENIZER, context_length=512).fingerprint == task.fingerprint
    other = asked.model_copy(update={"seed": 5})
    assert prepare_lm_eval(other, TOKENIZER, context_length=512).fingerprint != task.fingerprint
    elsewhere = answer_lm_eval(task, runtime("other"), TOKENIZER, context_length=512, own_template=True)
    assert [answer.prompt_hash for answer in elsewhere] == [item.asked_hash for item in task.items]


def test_other_prompts_refuse_the_comparison(tmp_path: Path) -> None:
    path = write_arc(tmp_path)
    plain = prepare_lm_eval(section(path), TOKENIZER, context_length=512)
    chat = prepare_lm_eval(section(path, chat_template=True), TOKENIZER, context_length=512)
    assert chat.items[0].prompt_text.endswith("<|im_start|>assistant\n")
    answers = {
        "base": answer_lm_eval(plain, runtime(), TOKENIZER, context_length=512),
        "tuned": answer_lm_eval(chat, runtime("tuned"), TOKENIZER, context_length=512),
    }
    with pytest.raises(FinetuneError, match="got different prompts on 12 of 12 items, first on '0'"):
        judge_lm_eval(plain, answers, confidence=0.95, seed=0)


# ------------------------------------------------------------------------------------------------------------ examples


def test_examples_come_from_their_split_and_never_from_what_is_asked(tmp_path: Path) -> None:
    rows = arc_rows(4)
    path = write_task(tmp_path, changed(write_text(), num_fewshot="2"), rows, [*rows[:3], *arc_rows(3, 100)])
    task = prepare_lm_eval(section(path), TOKENIZER, context_length=512)
    assert task.notes == ("3 of 6 rows for examples are asked themselves and were left out",)
    for item, row in zip(task.items, rows, strict=True):
        assert item.prompt_text.count(row["question"]) == 1
        assert item.prompt_text.count("Question:") == 3
    assert len(prepare_lm_eval(section(path, shots=3), TOKENIZER, context_length=512).items) == 4
    with pytest.raises(FinetuneError, match="4 examples are wanted, and of 6 rows 3 are not asked themselves"):
        prepare_lm_eval(section(path, shots=4), TOKENIZER, context_length=512)


def write_text() -> str:
    from tests.evaluation.lm_eval.lm_eval_files import ARC

    return ARC


def test_examples_need_a_split_that_is_named(tmp_path: Path) -> None:
    path = write_arc(tmp_path, fewshot_split="", num_fewshot="2")
    with pytest.raises(FinetuneError, match="the task says no split that its 2 examples come from") as caught:
        run(path)
    assert caught.value.problems[0].fix == "add `fewshot_split: train`, or set shots: 0"
    assert run(path, shots=0).n == 12


def test_examples_of_the_asked_split_leave_the_item_itself_out(tmp_path: Path) -> None:
    path = write_arc(tmp_path, fewshot_split="test", num_fewshot="2")
    with pytest.raises(FinetuneError, match="2 examples are wanted, and of 12 rows 0 are not asked themselves"):
        run(path)
    task = prepare_lm_eval(section(path, max_items=8), TOKENIZER, context_length=512)
    asked = {row["question"] for number, row in enumerate(arc_rows(12)) if number in task.numbers}
    for item in task.items:
        shown = item.prompt_text.split("Question: ")[1:-1]
        assert len(shown) == 2
        assert not asked & {text.partition("\n")[0] for text in shown}


# ------------------------------------------------------------------------------------------------------ what is refused


def problems(path: str, **settings: Any) -> list[str]:
    with pytest.raises(FinetuneError) as caught:
        run(path, **settings)
    return [str(problem).replace(str(Path(path).parent) + "/", "") for problem in caught.value.problems]


def test_functions_are_refused_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    path = write_arc(tmp_path, process_docs="!function evil.run", metric_list="[{metric: !!python/name:os.system x}]")
    assert problems(path) == [
        "task.yaml:10: '!function' would run code, and a task file is read as data\n"
        "    -> write it as a template over the columns, or the whole task as `kind: data`",
        "task.yaml:11: '!!python/name:os.system' would run code, and a task file is read as data\n"
        "    -> write it as a template over the columns, or the whole task as `kind: data`",
        "task.yaml:10: process_docs is a function, and a task file is read as data\n"
        "    -> write it as a template over the columns, or the whole task as `kind: data`",
        "task.yaml:11: 'x' is no metric of one item for multiple_choice\n"
        "    -> it has acc, acc_norm, acc_bytes, acc_mutual_info, exact_match",
    ]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ question.__class__.__mro__ }}", "access to attribute '__class__'"),
        ("{{ ''.join(question) }}", "doc_to_text calls 'join'; templates may call index, strip"),
        ("{{ question.format(question) }}", "doc_to_text calls 'format'; templates may call index, strip"),
        ("{% for x in question %}{{ x }}{% endfor %}", "doc_to_text does more than write columns (For)"),
        ("{{ 'a' * 1000000000 }}", "doc_to_text does more than write columns (Mul)"),
        ("{% include 'x' %}", "doc_to_text does more than write columns (Include)"),
        ("{{ question | attr('x') }}", "doc_to_text uses the filter 'attr'"),
        ("{{ qestion }}", "doc_to_text names the column 'qestion', which no row has; did you mean 'question'?"),
        ("{{ question", "doc_to_text not a Jinja template: unexpected end of template"),
    ],
)
def test_templates_name_columns_and_do_little_else(tmp_path: Path, template: str, said: str) -> None:
    found = problems(write_arc(tmp_path, doc_to_text=f'"{template}"'))
    assert said in found[0]
    assert found[0].startswith(("task.yaml:12: ", "test.jsonl:1: "))


def test_unknown_settings_and_values_are_told_at_once(tmp_path: Path) -> None:
    path = write_arc(
        tmp_path,
        doc_to_chioce="x",
        repeats="3",
        use_prompt="promptsource:*",
        metric_list="[{metric: accuracy}, {metric: f1}]",
        dataset_kwargs="{data_files: {test: test.jsonl, train: train.jsonl}, data_dir: x}",
        filter_list="[{name: mine, filter: [{function: custom}]}]",
    )
    found = problems(path)
    for said in (
        "lm-eval knows no 'doc_to_chioce'\n    -> did you mean 'doc_to_choice'?",
        "an item is answered once here, greedily",
        "use_prompt fetches templates that lm-eval runs as code",
        "'accuracy' is no metric of one item for multiple_choice",
        "'f1' is no metric of one item for multiple_choice",
        "dataset_kwargs.data_dir is not read in a task file",
        "the filter 'custom' is not read in a task file",
    ):
        assert any(said in one for one in found), said
    assert len(found) == 7


def test_items_that_would_score_nothing_are_refused_with_their_lines(tmp_path: Path) -> None:
    rows = arc_rows(6)
    rows[0]["answerKey"] = "E"
    del rows[1]["answerKey"]
    rows[2]["choices"] = {"text": ["only one"], "label": ["C"]}
    rows[3]["choices"] = {"text": ["", "x", "y", "z"], "label": ["A", "B", "C", "D"]}
    rows[4]["question"] = None
    found = problems(write_task(tmp_path, write_text(), rows, arc_rows(2, 100)))
    assert [one.partition("\n")[0] for one in found] == [
        "test.jsonl:1: 'E' is not in list",
        "test.jsonl:2: 'answerKey' is undefined",
        "test.jsonl:3: the choices are no list of two or more: ['only one']",
        "test.jsonl:4: a choice is no text or empty: ['', 'x', 'y', 'z']",
        "test.jsonl:5: a null would be printed",
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("B", "the answer 'B' is none of the choices ['red', 'blue']; letters are no choices"),
        (2, "the answer 2 is none of the choices 0 to 1"),
        (-1, "the answer -1 is none of the choices 0 to 1"),
        (True, "the answer True is neither a number nor a choice"),
        ("", "there is no answer"),
        (1.0, "the answer 1.0 is neither a number nor a choice"),
    ],
)
def test_answers_that_are_no_choice_are_refused(tmp_path: Path, answer: Any, said: str) -> None:
    text = changed(write_text(), doc_to_choice='"options"', doc_to_target='"answer"')
    rows = [{"question": f"Which colour {n}?", "options": ["red", "blue"], "answer": 0} for n in range(3)]
    rows[1]["answer"] = answer
    (found,) = problems(write_task(tmp_path, text, rows, rows[:1]))
    assert found.startswith(f"test.jsonl:2: {said}")


def test_missing_answers_of_written_tasks_are_refused(tmp_path: Path) -> None:
    rows = [*sum_rows(2), {"question": "1 and 1?", "answer": ""}, {"question": "1 and 2?", "answer": None}]
    found = problems(write_task(tmp_path, changed_sums(), rows, sum_rows(2)))
    assert [one.partition("\n")[0] for one in found] == [
        "test.jsonl:3: there is no answer",
        "test.jsonl:4: a null would be printed",
    ]


def changed_sums(**replaced: str) -> str:
    from tests.evaluation.lm_eval.lm_eval_files import SUMS

    return changed(SUMS, **replaced)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    path = write_arc(tmp_path)
    (tmp_path / "test.jsonl").write_text("", encoding="utf-8")
    assert "test.jsonl" in problems(path)[0]
    path = write_arc(tmp_path, test_split="validation")
    assert problems(path) == [
        "task.yaml:3: there is no data file for the split 'validation'\n"
        "    -> write `dataset_kwargs: {data_files: {validation: FILE}}`"
    ]


def test_prompts_longer_than_the_context_are_named(tmp_path: Path) -> None:
    rows = sum_rows(4)
    rows[2]["question"] = "and " * 600
    found = problems(write_task(tmp_path, changed_sums(), rows, sum_rows(2)))
    assert len(found) == 1
    assert found[0].startswith("sums, item 2: 6")
    assert "tokens of prompt and 8 of answer are more than the context of 512" in found[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"metric": "acc_nrom"}, "the task has no metric 'acc_nrom'\n    -> did you mean 'acc_norm'?"),
        ({"answer_filter": "strict"}, "the task has no way 'strict' to read answers\n    -> it has none"),
        ({"group_by": "documents"}, "there is no column 'documents'\n    -> did you mean 'document'?"),
        ({"max_new_tokens": 4}, "the task is answered by likelihood (multiple_choice), not in writing"),
        ({"task": "arc_easy"}, "a task of lm-eval needs either `task` or `path`, not both"),
    ],
)
def test_settings_that_fit_no_task_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    assert said in problems(write_arc(tmp_path), **settings)[0]


def test_an_included_file_lies_under_the_one_that_includes_it(tmp_path: Path) -> None:
    write_arc(tmp_path)
    (tmp_path / "task.yaml").rename(tmp_path / "below.yaml")
    path = tmp_path / "own.yaml"
    path.write_text("include: below.yaml\ntask: own\nmetric_list: [{metric: acc_norm}]\n", encoding="utf-8")
    result = run(str(path))
    assert (result.task, result.scorer) == ("own", "acc_norm")
    (tmp_path / "below.yaml").write_text("include: own.yaml\n", encoding="utf-8")
    with pytest.raises(FinetuneError, match=r"'below\.yaml' and this file include each other"):
        run(str(path))


def test_answers_are_read_by_the_filter_that_is_named(tmp_path: Path) -> None:
    filters = (
        "[{name: all, filter: [{function: take_first}]}, "
        "{name: none, filter: [{function: regex, regex_pattern: 'never (x)'}, {function: take_first}]}]"
    )
    path = write_sums(tmp_path, filter_list=filters)
    assert run(path).scorer == "exact_match (all)"
    read = run(path, answer_filter="none").contestants["base"]
    assert {answer.detail["read"] for answer in read} == {"[invalid]"}
    assert {answer.score for answer in read} == {0.0}


@pytest.mark.slow
def test_tasks_that_lm_eval_has_not_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, said in (
        ("arc_eazy", "lm-eval has no task 'arc_eazy'\n    -> did you mean 'arc_easy'?"),
        ("ai2_arc", "'ai2_arc' is a group of tasks\n    -> name one of them: arc_challenge, arc_easy"),
        ("humaneval", "the task 'humaneval' runs what models write"),
        ("squad_completion", "the task 'squad_completion' cannot be loaded: "),
    ):
        with pytest.raises(FinetuneError) as caught:
            prepare_lm_eval(LmEvalTask(task=name), TOKENIZER, context_length=512)
        assert said in str(caught.value)


def test_rows_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = write_arc(tmp_path)
    with write_lines(tmp_path / "test.jsonl", arc_rows(2)).open("a", encoding="utf-8") as file:
        file.write("{not json\n")
    assert problems(path)[0].startswith("test.jsonl:3: ")
