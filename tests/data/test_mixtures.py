"""Mixtures: every source recognised on its own, drawn by its weight, kept apart by name, and accounted for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.benchmarks import BENCHMARKS
from finetune.data.corpus import read_corpus, weigh
from finetune.data.formats.fitting import ROLES
from finetune.data.prepare import Prepared, prepare
from finetune.data.rows import Example, Message, Origin
from finetune.errors import FinetuneError
from finetune.recipe import Recipe, load_recipe, missing_files
from finetune.recipe.schema import BenchmarkName, DataFormat
from tests.small_runs import questions, small_recipe, texts, tickets, write_lines, write_recipe
from tests.tiny import tiny_tokenizer

WHOLE = {"validation": 0.0, "test": 0.0}


def recipe_of(folder: Path, train: Any, **data: Any) -> Recipe:
    sections = {"objective": data.pop("objective")} if "objective" in data else {}
    sections["train"] = {"eval_every": None}
    return small_recipe(Path("some/base"), folder / "none", folder / "runs", data={"train": train, **data}, **sections)


def prepared(folder: Path, train: Any, **data: Any) -> Prepared:
    return prepare(recipe_of(folder, train, **data), tiny_tokenizer(), context_length=512)


def files(folder: Path) -> dict[str, str]:
    """Documents, questions, chats and tickets in files of their own."""
    chats = [
        {
            "id": f"c{n}",
            "messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": "Yes."}],
        }
        for n, row in enumerate(texts(20, 12, seed=5))
    ]
    written = {"docs": texts(20, 60, seed=6), "faq": questions(30, seed=7), "chats": chats, "queues": tickets(24)}
    return {name: str(write_lines(folder / f"{name}.jsonl", found)) for name, found in written.items()}


def refusal(recipe: Recipe) -> str:
    with pytest.raises(FinetuneError) as caught:
        read_corpus(recipe)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------- reading


def test_every_source_is_recognised_on_its_own(tmp_path: Path) -> None:
    named = files(tmp_path)
    corpus = read_corpus(recipe_of(tmp_path, [{"path": path} for path in named.values()], split=WHOLE))
    assert [part.recognition.format for part in corpus.parts] == [
        *("text", "prompt_completion", "messages", "classification"),
    ]
    assert corpus.recognition.format == "mixture"
    assert corpus.recognition.why.startswith(
        "4 sources: docs is text: column 'text' holds raw text over 20 rows; faq is "
    )
    assert Counter(example.source for example in corpus.train) == {"docs": 20, "faq": 30, "chats": 20, "queues": 24}
    assert (corpus.raw_text, corpus.labels) == (False, None)
    assert len({example.id for example in corpus.train}) == len(corpus.train) == 94


def test_a_list_of_names_stays_one_source_of_several_files(tmp_path: Path) -> None:
    paths = [str(write_lines(tmp_path / f"{name}.jsonl", questions(10, seed=ord(name)))) for name in "ab"]
    corpus = read_corpus(recipe_of(tmp_path, paths, split=WHOLE))
    assert [(part.name, part.rows_read) for part in corpus.parts] == [("a", 20)]
    corpus = read_corpus(recipe_of(tmp_path, [paths[0], {"path": paths[1]}], split=WHOLE))
    assert [(part.name, part.rows_read) for part in corpus.parts] == [("a", 10), ("b", 10)]
    corpus = read_corpus(recipe_of(tmp_path, [{"path": paths}], split=WHOLE))
    assert [(part.name, part.rows_read) for part in corpus.parts] == [("a", 20)]


def test_sources_with_equal_ids_and_names_are_told_apart(tmp_path: Path) -> None:
    paths = [str(write_lines(tmp_path / place / "rows.jsonl", questions(6, seed=len(place)))) for place in ("a", "bb")]
    corpus = read_corpus(recipe_of(tmp_path, [{"path": path} for path in paths], split=WHOLE))
    assert [part.name for part in corpus.parts] == ["rows", "rows (2)"]
    assert sorted(example.id for example in corpus.train) == sorted(
        [*(f"rows/q{n}" for n in range(6)), *(f"rows (2)/q{n}" for n in range(6))]
    )


def test_a_source_says_how_it_reads_and_takes_the_rest_from_data(tmp_path: Path) -> None:
    rows = [{"frage": f"f{n}", "antwort": "ja"} for n in range(4)]
    odd = str(write_lines(tmp_path / "odd.jsonl", rows))
    named = files(tmp_path)
    train = [
        {"path": odd, "columns": {"prompt": "frage", "completion": "antwort"}, "system": "Kurz."},
        {"path": named["queues"], "instruction": "Queue?"},
        {"path": named["faq"]},
    ]
    corpus = read_corpus(recipe_of(tmp_path, train, split=WHOLE, system="Be brief."))
    first = {example.source: example for example in reversed(list(corpus.train))}
    assert {name: example.messages[0].content for name, example in first.items()} == {
        "odd": "Kurz.",
        "queues": "Be brief.",
        "faq": "Be brief.",
    }
    assert first["queues"].messages[1].content.startswith("Queue?\n\n")


def test_problems_of_all_sources_are_told_with_their_lines(tmp_path: Path) -> None:
    write_lines(tmp_path / "odd.jsonl", [{"frage": "f", "antwort": "a"}] * 2)
    write_lines(tmp_path / "faq.jsonl", questions(4))
    values = {
        "model": {"base": "org/model"},
        "data": {
            "train": [{"path": "odd.jsonl"}, {"path": "faq.jsonl", "format": "alpaca"}, {"path": "nothing.jsonl"}]
        },
    }
    recipe = load_recipe(write_recipe(tmp_path / "recipe.yaml", values))
    with pytest.raises(FinetuneError) as caught:
        read_corpus(recipe)
    assert [(problem.where.rpartition("/")[2], problem.what.splitlines()[0]) for problem in caught.value.problems] == [
        ("recipe.yaml:5", "no format fits the columns 'frage', 'antwort'"),
        ("recipe.yaml:6", "format 'alpaca' does not fit the columns 'id', 'prompt', 'completion'"),
        ("recipe.yaml:8", f"no such file: '{tmp_path / 'nothing.jsonl'}'"),
    ]
    (missing,) = missing_files(recipe)
    assert missing.what == f"data.train.2.path does not exist: '{tmp_path / 'nothing.jsonl'}'"


def test_raw_text_alone_and_chat_under_pretrain_are_refused(tmp_path: Path) -> None:
    named = files(tmp_path)
    train = [{"path": named["docs"]}]
    assert "these rows are raw text without question and answer" in refusal(recipe_of(tmp_path, train))
    train = [{"path": named["docs"]}, {"path": named["faq"]}]
    told = refusal(recipe_of(tmp_path, train, objective={"kind": "pretrain"}))
    assert "objective pretrain learns raw text, and these rows are prompt_completion: faq" in told


# ----------------------------------------------------------------------------------------------------- dividing


def test_near_duplicates_and_groups_stay_together_across_sources(tmp_path: Path) -> None:
    rows = questions(40, seed=3)
    again = [{"instruction": row["prompt"], "output": row["completion"]} for row in rows]
    paths = [str(write_lines(tmp_path / "a.jsonl", rows)), str(write_lines(tmp_path / "b.jsonl", again))]
    corpus = read_corpus(
        recipe_of(tmp_path, [{"path": path} for path in paths], split={"test": 0.3, "validation": 0.0})
    )
    prompts = [{example.messages[-2].content for example in part} for part in (corpus.train, corpus.division.test)]
    assert not prompts[0] & prompts[1]
    assert len(corpus.division.test) == 24
    assert Counter(example.source for example in corpus.division.test) == {"a": 12, "b": 12}


def test_group_by_of_one_source_holds_for_all(tmp_path: Path) -> None:
    rows = [row | {"customer": f"k{n // 4}"} for n, row in enumerate(questions(40, seed=4))]
    paths = [
        str(write_lines(tmp_path / "a.jsonl", rows)),
        str(write_lines(tmp_path / "b.jsonl", questions(10, seed=9))),
    ]
    train = [{"path": path} for path in paths]
    corpus = read_corpus(recipe_of(tmp_path, train, split={"group_by": "customer", "test": 0.2}))
    groups = [{example.group for example in part} - {None} for part in (corpus.division.train, corpus.division.test)]
    assert all(groups)
    assert not groups[0] & groups[1]
    told = refusal(recipe_of(tmp_path, train, split={"group_by": "kunde"}))
    assert told.startswith("<python>: split: group_by names column 'kunde', which no row of any source has")


def test_raw_texts_are_learned_and_never_asked(tmp_path: Path) -> None:
    named = files(tmp_path)
    corpus = read_corpus(recipe_of(tmp_path, [{"path": named["docs"]}, {"path": named["faq"]}], split={"test": 0.3}))
    assert {example.source for example in corpus.division.test} == {"faq"}
    assert len(corpus.division.test) == 9
    assert "docs" in {example.source for example in corpus.train}


# ------------------------------------------------------------------------------------------------------- weights


def test_rows_enter_as_often_as_their_weight_says(tmp_path: Path) -> None:
    named = files(tmp_path)
    train = [
        {"path": named["docs"], "weight": 0.5},
        {"path": named["faq"], "weight": 2},
        {"path": named["chats"], "weight": 1.25},
        named["queues"],
    ]
    found = prepared(tmp_path, train, split=WHOLE)
    told = found.certificate.sources
    assert {name: source["drawn"] for name, source in told.items()} == {
        "docs": 10,
        "faq": 60,
        "chats": 25,
        "queues": 24,
    }
    assert {name: source["left_out"] for name, source in told.items()} == {
        "docs": 10,
        "faq": 0,
        "chats": 0,
        "queues": 0,
    }
    assert {name: source["kept"] for name, source in told.items()} == {"docs": 10, "faq": 30, "chats": 20, "queues": 24}
    assert sum(source["tokens"] for source in told.values()) == found.certificate.tokens["total"]
    assert all(source["read"] == source["kept"] + source["dropped"] + source["left_out"] for source in told.values())
    assert found.certificate.left_out_by_sampling == 10
    assert Counter(Counter(row.id for row in found.train if row.id[1:].isdigit()).values()) == {2: 35, 1: 15}


def example(number: int, source: str) -> Example:
    messages = (Message("user", f"{source} {number}"), Message("assistant", "x"))
    return Example(id=f"{source}{number}", origin=Origin("f", number), messages=messages, source=source)


@given(st.integers(1, 40), st.floats(0.01, 4.0), st.integers(0, 3))
def test_weights_are_kept_to_the_row_and_larger_shares_hold_smaller_ones(count: int, weight: float, seed: int) -> None:
    corpus = [example(number, source) for number in range(count) for source in ("a", "b")]
    drawn = Counter(one.id for one in weigh(corpus, {"a": weight, "b": 1.0}, seed))
    of_a = [times for name, times in drawn.items() if name.startswith("a")]
    assert sum(of_a) == int(weight) * count + (max(round(weight % 1 * count), int(weight < 1)))
    assert max(of_a) - min(of_a) <= 1
    assert all(drawn[f"b{number}"] == 1 for number in range(count))
    more = Counter(one.id for one in weigh(corpus, {"a": weight + 0.3, "b": 1.0}, seed))
    assert all(more[name] >= times for name, times in drawn.items())


# ------------------------------------------------------------------------------------- judged answers under sft


def test_of_pairs_the_better_answer_is_learned_and_the_worse_one_kept(tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "chosen": "good", "rejected": "bad"} for row in questions(10)]
    found = prepared(tmp_path, str(write_lines(tmp_path / "pairs.jsonl", rows)), split=WHOLE)
    tokenizer = tiny_tokenizer()
    assert {tokenizer.decode(row.input_ids[row.trained].tolist()) for row in found.train} == {"good<|im_end|>"}
    assert "of 10 preference pairs, objective sft learns the chosen answer alone" in [
        problem.what for problem in found.certificate.problems
    ]


def test_answers_marked_bad_are_set_aside_and_counted(tmp_path: Path) -> None:
    rows = [row | {"label": n % 3 != 0} for n, row in enumerate(questions(12))]
    found = prepared(tmp_path, str(write_lines(tmp_path / "judged.jsonl", rows)), split=WHOLE)
    assert found.certificate.dropped == {"marked as a bad answer": 4}
    assert (found.certificate.rows_read, found.certificate.rows_kept) == (12, 8)
    assert {bad.detail for bad in found.dropped} == {"objective sft learns good answers only"}
    assert "4 rows are marked as bad answers, which objective sft does not learn" in [
        problem.what for problem in found.certificate.problems
    ]


# ---------------------------------------------------------------------------------------------------- benchmarks


def gsm8k(folder: Path) -> str:
    for split, count in (("train", 12), ("test", 4)):
        rows = [{"question": f"{split} {n} plus {n}?", "answer": f"Sum.\n#### {2 * n}"} for n in range(count)]
        write_lines(folder / f"{split}.jsonl", rows)
    return str(folder)


def test_a_benchmark_brings_its_official_splits_and_is_said(tmp_path: Path) -> None:
    folder = gsm8k(tmp_path / "gsm8k")
    corpus = read_corpus(recipe_of(tmp_path, folder, split={"near_duplicates": "ignore"}))
    assert corpus.recognition.format == "gsm8k"
    assert "benchmark 'gsm8k'" in corpus.recognition.why
    assert (len(corpus.division.train), len(corpus.division.test)) == (11, 4)
    assert "4 rows of the official test split of gsm8k are the test rows" in [n.what for n in corpus.division.notes]
    other = str(write_lines(tmp_path / "own.jsonl", questions(3)))
    told = refusal(recipe_of(tmp_path, folder, test=other))
    assert "gsm8k" in told
    corpus = read_corpus(
        recipe_of(tmp_path, [{"path": folder}, {"path": str(write_lines(tmp_path / "q.jsonl", questions()))}])
    )
    assert {one.source for one in corpus.division.test} == {"gsm8k"}


def test_a_benchmark_named_by_the_recipe_and_settings_it_has_itself(tmp_path: Path) -> None:
    folder = gsm8k(tmp_path / "gsm8k")
    split = {"near_duplicates": "ignore"}
    corpus = read_corpus(recipe_of(tmp_path, folder, format="gsm8k", system="Think.", split=split))
    assert corpus.recognition.why.startswith("format given in the recipe; ")
    assert corpus.train[0].messages[0] == Message("system", "Think.")
    told = refusal(recipe_of(tmp_path, folder, format="gsm8k", columns={"prompt": "question"}))
    assert "`columns` does nothing in format 'gsm8k': the benchmark has its own" in told
    columns = {"prompt": "question", "completion": "answer"}
    corpus = read_corpus(recipe_of(tmp_path, str(tmp_path / "gsm8k" / "train.jsonl"), columns=columns, split=split))
    assert corpus.recognition.format == "prompt_completion"


def test_every_format_has_a_name_in_the_recipe() -> None:
    assert set(get_args(BenchmarkName)) == {benchmark.name for benchmark in BENCHMARKS}
    assert set(get_args(DataFormat)) == {"auto", *ROLES, *get_args(BenchmarkName)}


def test_further_sources_have_the_classes_of_the_training_source_alike(tmp_path: Path) -> None:
    named = files(tmp_path)
    held = write_lines(tmp_path / "held.jsonl", [row for row in tickets(12, seed=8) if row["queue"] != "other"])
    train = [{"path": named["queues"]}, {"path": named["faq"]}]
    corpus = read_corpus(recipe_of(tmp_path, train, test=[{"path": str(held)}], split={"validation": 0.0}))
    assert len(corpus.division.test) == 9
    assert "Classes: billing, other, returns, shipping\n" in corpus.division.test[0].messages[0].content
    assert [part.name for part in corpus.parts] == ["queues", "faq", "test: held"]
    odd = write_lines(tmp_path / "odd.jsonl", [{"text": "x", "queue": q} for q in ("billing", "billing", "zzz", "zzz")])
    told = refusal(recipe_of(tmp_path, train, test=[{"path": str(odd)}]))
    assert "label not in training data: column 'queue' is 'zzz'" in told


def test_raw_texts_among_given_test_rows_are_set_aside(tmp_path: Path) -> None:
    named = files(tmp_path)
    train = [{"path": named["docs"]}, {"path": named["faq"]}]
    held = [{"path": str(write_lines(tmp_path / "t.jsonl", texts(5, seed=11)))}, {"path": named["chats"]}]
    corpus = read_corpus(recipe_of(tmp_path, train, test=held))
    assert len(corpus.division.test) == 20
    assert Counter(bad.reason for bad in corpus.dropped) == {"raw text among test questions": 5}


def test_what_the_recipe_resolved_says_again_what_it_said(tmp_path: Path) -> None:
    from finetune.recipe import explain, to_yaml

    named = files(tmp_path)
    recipe = recipe_of(tmp_path, [{"path": named["docs"], "weight": 0.5}, named["faq"]], sample={"seed": 3})
    file = tmp_path / "again.yaml"
    file.write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe(file).data == recipe.data
    told = {one.path: one.value for one in explain(recipe)}
    assert (told["data.train.0.weight"], told["data.train.1"]) == (0.5, named["faq"])
    assert json.dumps(told["data.train.0.path"]) == json.dumps(named["docs"])
