"""Runs against each other: paired on common items, refused with a reason, seeds of one recipe told as such."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import FinetuneError
from finetune.evaluation.reporting.across import compare_runs
from finetune.rundir import RunFolder, write_json, write_json_lines
from tests.run_records import finished_run, new_run, ticket_result, whole_run

Change = Callable[[dict[str, Any]], dict[str, Any]]


def run(path: Path, right: float = 0.85, *, n: int = 60, seed: int = 0, **identity: Any) -> RunFolder:
    folder = finished_run(path, result=ticket_result(n=n, tuned_right=right))
    folder.update(identity={**folder.manifest()["identity"], "run.seed": seed, **identity})
    return folder


def rewrite(folder: RunFolder, change: Change) -> None:
    path = folder.evaluation / "answers.jsonl"
    write_json_lines(path, [change(json.loads(line)) for line in path.read_text().splitlines()])


def alter(folder: RunFolder, **entries: Any) -> None:
    path = folder.evaluation / "results.json"
    results = json.loads(path.read_text())
    write_json(path, {"tasks": [{**results["tasks"][0], **entries}]})


def test_a_better_run_is_said_to_be_better(tmp_path: Path) -> None:
    run(tmp_path / "rank8", 0.3, **{"method.rank": 8})
    run(tmp_path / "rank16", 0.9)
    found = compare_runs([tmp_path / "rank8", tmp_path / "rank16"])
    (task,) = found.tasks
    assert (task.n, task.left_out, found.refused) == (60, (), ())
    assert list(task.scores) == ["rank8", "rank16"]
    (pair,) = task.pairings
    assert (pair.reference, pair.run, pair.verdict, pair.p_holm) == ("rank8", "rank16", "better", None)
    assert pair.comparison.difference == pytest.approx(task.scores["rank16"].mean - task.scores["rank8"].mean)
    assert pair.sentence.startswith("rank16 is better than rank8 on held-out: json_fields 0.9")
    assert pair.sentence.endswith("(95 %, n = 60, paired bootstrap, p < 0.001).")
    assert found.seed_sentences == ()


def test_the_same_run_twice_under_two_names_is_a_tie(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b")
    found = compare_runs([tmp_path / "a", tmp_path / "b"])
    (pair,) = found.tasks[0].pairings
    assert (pair.comparison.difference, pair.comparison.ties) == (0.0, 60)
    assert pair.verdict == "no detectable difference"
    assert found.seed_sentences == (
        "a, b are 2 runs of one recipe with the same seed, 0; with 3 seeds or more the recipe itself can be judged.",
    )


def test_only_common_items_are_compared_and_the_rest_is_counted(tmp_path: Path) -> None:
    run(tmp_path / "a", n=60)
    run(tmp_path / "b", n=50)
    third = run(tmp_path / "c", n=60)
    rewrite(third, lambda one: {**one, "prompt": "other"} if one["id"] in ("T-01501", "T-01502") else one)
    (task,) = compare_runs([tmp_path / name for name in "abc"]).tasks
    assert task.n == 48
    assert task.left_out == ("10 items only in a", "2 items asked with another prompt in c")
    assert [len(records) for records in task.answers.values()] == [48, 48, 48]
    assert len({tuple(one["id"] for one in records) for records in task.answers.values()}) == 1


def test_runs_that_share_nothing_with_all_before_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "a", n=40)
    run(tmp_path / "b", n=20)
    third = run(tmp_path / "c", n=40)
    rewrite(third, lambda one: {**one, "prompt": "other"} if int(one["id"][2:]) <= 1520 else one)
    found = compare_runs([tmp_path / name for name in "abc"])
    assert [(one.run, one.reason) for one in found.refused] == [
        ("c", "it shares no test item with all the runs before it")
    ]
    assert list(found.tasks[0].scores) == ["a", "b"]
    assert found.sentences[-1] == "c is not compared on held-out: it shares no test item with all the runs before it."


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda folder: rewrite(folder, lambda one: {**one, "prompt": f"sys {one['prompt']}"}),
            "all 20 items that it shares with a were asked with other prompts (another chat template, system prompt or "
            "examples), first 'T-01501'",
        ),
        (
            lambda folder: rewrite(folder, lambda one: {**one, "id": f"x{one['id']}"}),
            "it shares no test item with a: 20 here, 20 there",
        ),
        (lambda folder: alter(folder, scorer="label"), "it was judged by 'label', a by 'json_fields'"),
        (lambda folder: alter(folder, task="other"), "it has not been evaluated on this task"),
        (
            lambda folder: (folder.evaluation / "answers.jsonl").unlink(),
            "evaluation/answers.jsonl with its answers is not there",
        ),
        (
            lambda folder: folder.finish("evaluate", settings={"fields": ["queue"]}),
            "it was judged with other settings than a: fields ['queue'] here, None there",
        ),
        (
            lambda folder: alter(folder, tuned=0.123),
            "its json_fields is not the mean of its items' scores, so items cannot be paired",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_with_its_reason(
    tmp_path: Path, spoil: Callable[[RunFolder], Any], reason: str
) -> None:
    run(tmp_path / "a", n=20)
    spoil(run(tmp_path / "b", n=20))
    run(tmp_path / "c", n=20)
    found = compare_runs([tmp_path / name for name in "abc"])
    refused = [(one.run, one.task, one.reason) for one in found.refused]
    assert refused[0] == ("b", "held-out", reason)
    assert list(found.tasks[0].scores) == ["a", "c"]
    with pytest.raises(FinetuneError) as caught:
        compare_runs([tmp_path / "a", tmp_path / "b"])
    problems = caught.value.problems
    assert ("b, task 'held-out'", reason) in [(one.where, one.what) for one in problems]
    assert {one.fix for one in problems} == {
        "compare runs that were evaluated on the same test rows with the same prompts"
    }


def test_the_same_base_that_scores_differently_is_told(tmp_path: Path) -> None:
    run(tmp_path / "a", n=20)
    other = run(tmp_path / "b", n=20)

    def better(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "base": {**one["base"], "score": 1.0}} if one["id"] == "T-01503" else one

    rewrite(other, better)
    (task,) = compare_runs([tmp_path / "a", tmp_path / "b"]).tasks
    assert task.left_out == (
        "the same base scored differently in a and b on 1 of 20 items: machine, versions or settings differ too",
    )
    other.update(identity={**other.manifest()["identity"], "base": "another"})
    assert compare_runs([tmp_path / "a", tmp_path / "b"]).tasks[0].left_out == ()


def test_several_comparisons_are_corrected_together(tmp_path: Path) -> None:
    run(tmp_path / "a", 0.5, **{"method.rank": 2})
    run(tmp_path / "b", 0.9, **{"method.rank": 4})
    run(tmp_path / "c", 0.5, **{"method.rank": 8})
    pairs = compare_runs([tmp_path / name for name in "abc"]).tasks[0].pairings
    assert [pair.verdict for pair in pairs] == ["better", "no detectable difference"]
    assert "Corrected for 2 comparisons (Holm), p < 0.001: better." in pairs[0].sentence
    assert pairs[0].p_holm is not None
    assert pairs[0].p_holm == pytest.approx(2 * pairs[0].comparison.p_value)


def test_too_few_items_give_no_verdict(tmp_path: Path) -> None:
    for name, right in (("a", 0.0), ("b", 1.0)):
        run(tmp_path / name, right, n=6)
    (pair,) = compare_runs([tmp_path / "a", tmp_path / "b"]).tasks[0].pairings
    assert pair.verdict == "too few items to tell"
    assert pair.sentence.startswith("Too few items to tell b from a on held-out: json_fields ")


# ------------------------------------------------------------------------------------------------------------- seeds


def test_seeds_of_one_recipe_are_told_as_such_and_judged_together(tmp_path: Path) -> None:
    run(tmp_path / "other", 0.3, **{"method.rank": 8})
    for seed in range(3):
        run(tmp_path / f"s{seed}", 0.8 + 0.02 * seed, seed=seed)
    found = compare_runs([tmp_path / name for name in ("other", "s0", "s1", "s2")])
    assert [[one.name for one in group] for group in found.recipes] == [["other"], ["s0", "s1", "s2"]]
    assert found.seed_sentences == ("s0, s1, s2 are 3 runs of one recipe with the seeds 0, 1, 2.",)
    (task,) = found.tasks
    base, other = task.over_seeds
    assert (base.run, base.reference) == ("the recipe of s0, s1, s2 (3 seeds)", "base")
    assert other.reference == "other"
    assert base.verdict == other.verdict == "better"
    assert base.comparison.test == "t test over items and 3 seeds"
    assert base.sentence.startswith("The recipe of s0, s1, s2 (3 seeds) is better than base on held-out: json_fields ")
    assert "(standard deviation beyond the items' noise)." in base.sentence
    means = [task.scores[name].mean for name in ("s0", "s1", "s2")]
    assert base.comparison.tuned == pytest.approx(sum(means) / 3)
    assert "Only the seed differs" not in task.pairings[0].sentence


def test_two_seeds_are_told_but_say_nothing_of_the_recipe(tmp_path: Path) -> None:
    run(tmp_path / "s0")
    run(tmp_path / "s1", seed=1)
    found = compare_runs([tmp_path / "s0", tmp_path / "s1"])
    (task,) = found.tasks
    assert task.over_seeds == ()
    assert "Only the seed differs: 0 and 1." in task.pairings[0].sentence
    assert found.sentences[0] == (
        "s0, s1 are 2 runs of one recipe with the seeds 0, 1; with 3 seeds or more the recipe itself can be judged."
    )


# ------------------------------------------------------------------------------------------------ tasks and folders


def test_every_task_is_compared(tmp_path: Path) -> None:
    whole_run(tmp_path / "a")
    whole_run(tmp_path / "b", seed=1)
    run(tmp_path / "c", n=120)
    found = compare_runs([tmp_path / name for name in "abc"])
    assert [(task.task, list(task.scores)) for task in found.tasks] == [
        ("held-out", ["a", "b", "c"]),
        ("capitals", ["a", "b"]),
    ]
    assert [(one.run, one.task) for one in found.refused] == [("c", "capitals")]
    values = found.as_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["tasks"][0]["answers"] == {}
    assert values["recipes"] == [["a", "b", "c"]]
    assert values["tasks"][1]["pairings"][0]["verdict"] == "no detectable difference"


def test_runs_of_one_name_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        run(tmp_path / folder / "run", n=20)
    found = compare_runs([tmp_path / "x" / "run", tmp_path / "y" / "run"])
    assert [one.name for one in found.runs] == [str(tmp_path / "x" / "run"), str(tmp_path / "y" / "run")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "one run alone has nothing to be compared with"),
        (["a", "a"], "the same run is named twice"),
        (["a", "b", "./a"], "the same run is named twice"),
        ([], "one run alone has nothing to be compared with"),
        (["a", "nowhere"], "there is no run here"),
        (["a", "new"], "this run has not been evaluated yet"),
    ],
)
def test_what_is_no_comparison_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    run(tmp_path / "a", n=12)
    run(tmp_path / "b", n=12)
    new_run(tmp_path / "new")
    with pytest.raises(FinetuneError) as caught:
        compare_runs([tmp_path / name for name in names])
    assert caught.value.problems[0].what == message
    assert caught.value.problems[0].fix


def test_damaged_answers_are_named(tmp_path: Path) -> None:
    run(tmp_path / "a", n=12)
    answers = run(tmp_path / "b", n=12).evaluation / "answers.jsonl"
    answers.write_text(answers.read_text() + "{")
    with pytest.raises(FinetuneError, match="this file is damaged: ") as caught:
        compare_runs([tmp_path / "a", tmp_path / "b"])
    assert caught.value.problems[0].where == f"{answers}:13"
