"""A whole evaluation: several tasks, all kinds of contestants, and what is planted in them is named."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune import pipeline
from finetune.contest import require_tasks
from finetune.errors import FinetuneError
from finetune.recipe import Recipe, recipe_from_dict
from finetune.results import Evaluation
from finetune.session import Run
from tests.chat_server import Asked, ChatServer, Told, said
from tests.small_runs import SmallRun, hashes, lines, sentence, small_recipe, write_lines

# The untrained model takes the first for a little likelier; the trained one says nothing but the second
CHOICES = ("account", "returns")
KEY = "FINETUNE_TEST_KEY"


def plant(folder: Path, corpus: Path) -> Path:
    """Write a task of 24 items; two are training rows, to the letter and in another case."""
    chance = random.Random(7)
    trained = [row["prompt"] for row in lines(corpus)]
    rows = [
        {"id": f"p{number}", "prompt": sentence(chance), "completion": "returns", "team": f"team {number % 2}"}
        for number in range(24)
    ]
    rows[3]["prompt"], rows[5]["prompt"] = trained[0], trained[1].upper()
    return write_lines(folder / "planted.jsonl", rows)


def chosen(folder: Path) -> Path:
    """Write a task of 24 items that are answered by choosing; each choice is right in turn."""
    chance = random.Random(8)
    rows = [{"id": f"c{number}", "prompt": sentence(chance), "completion": CHOICES[number % 2]} for number in range(24)]
    return write_lines(folder / "chosen.jsonl", rows)


def answer(asked: Asked) -> Told:
    """Say `returns` to a question; as a judge, prefer whatever stands first."""
    return said("Both will do.\nVerdict: A" if is_judged(asked) else "returns")


def is_judged(asked: Asked) -> bool:
    return str(asked.body["messages"][0]["content"]).startswith("You compare two answers")


def recipe_with(run: SmallRun, runs: Path, **evaluate: Any) -> Recipe:
    values = yaml.safe_load((run.folder / "recipe.yaml").read_text("utf-8"))
    values["evaluate"] = {"require": "nothing", "cost": values["evaluate"]["cost"], **evaluate}
    values["run"]["folder"] = str(runs)
    shutil.copytree(run.folder, runs / "run")
    return recipe_from_dict(values)


@pytest.fixture(scope="module")
def contest(
    tiny_base: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Evaluation, list[str], ChatServer]:
    """An evaluation with everything in it, and what was told meanwhile."""
    folder = tmp_path_factory.mktemp("contest")
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch, ChatServer(answer) as server:
        patch.setenv(KEY, "sk-secret")
        evaluate = {
            "slices": ["team"],
            "judge": {"url": server.url, "model": "j-1"},
            "tasks": [
                {"kind": "held-out"},
                {"kind": "data", "name": "planted", "test": str(plant(folder, corpus)), "shots": 0},
                {"kind": "data", "name": "chosen", "test": str(chosen(folder)), "choices": list(CHOICES)},
            ],
            "contestants": [
                {"kind": "model", "name": "twin", "base": str(tiny_base)},
                {"kind": "export", "name": "merged"},
                {
                    **{"kind": "endpoint", "name": "big", "url": server.url, "model": "m-1", "api_key_env": KEY},
                    **{"price_per_million_input": 1.0, "price_per_million_output": 2.0},
                },
            ],
        }
        # Enough to have learned to say `returns` whatever is asked
        train = {"steps": 24, "eval_every": 24}
        recipe = small_recipe(tiny_base, corpus, folder, train=train, evaluate=evaluate)
        pipeline.run(recipe, tell=told.append)
        work = Run.open(folder / "run")
        return work, Evaluation.read(work.folder), told, server


def test_everyone_answers_what_they_can(contest: tuple[Run, Evaluation, list[str], ChatServer]) -> None:
    work, found, told, server = contest
    assert [task["task"] for task in found.tasks] == ["held-out", "planted", "chosen"]
    everyone, local = ["tuned", "twin", "merged", "big"], ["tuned", "merged"]
    assert [list(task["comparisons"]) for task in found.tasks] == [everyone, everyone, local]
    assert "evaluate twin does not take part in chosen: its tokens are not those of the run" in told
    assert "evaluate big does not take part in chosen: an endpoint tells no likelihoods" in told
    assert set(found.cost) == {"base", *everyone}
    assert len(lines(work.folder.evaluation / "answers-planted.jsonl")) == 24
    # 29 questions, and the requests whose time was taken are asked anew
    assert sum(not is_judged(asked) for asked in server.asked) == 5 + 24 + 3
    assert found.sameness is not None
    assert set(found.sameness["prompts"]) == {"base", *everyone}


def test_an_endpoint_is_billed_and_its_key_stays_out(
    contest: tuple[Run, Evaluation, list[str], ChatServer],
) -> None:
    work, found, _, server = contest
    # 10 tokens in, 5 out
    assert found.cost["big"]["price_per_thousand_requests"] == pytest.approx(1000 * (10 * 1.0 + 5 * 2.0) / 1e6)
    assert server.asked[0].headers["Authorization"] == "Bearer sk-secret"
    leaky = [path for path in work.folder.path.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]
    assert leaky == []


def test_a_judge_that_always_takes_the_first_prefers_nobody(
    contest: tuple[Run, Evaluation, list[str], ChatServer],
) -> None:
    work, found, told, server = contest
    judgement = found.tasks[1]["judge"]["tuned"]
    assert (judgement["first_place"], judgement["agreement"], judgement["difference"]) == (1.0, 0.0, 0.0)
    assert found.tasks[2]["judge"] == {}
    said_of = lines(work.folder.evaluation / "judge-planted.jsonl")
    asked = sum(one["asked"] for one in said_of)
    assert len(said_of) == 24
    assert any(line.startswith("evaluate planted: The judge j-1 shows no detectable preference") for line in told)
    assert ">Judge<" in (work.folder.path / "report.html").read_text(encoding="utf-8")
    assert sum(map(is_judged, server.asked)) >= 2 * asked > 0


def test_a_planted_tie_is_told(contest: tuple[Run, Evaluation, list[str], ChatServer]) -> None:
    twin = contest[1].tasks[1]["comparisons"]["twin"]
    assert (twin["difference"], twin["wins"], twin["losses"], twin["ties"]) == (0.0, 0, 0, 24)
    assert twin["verdict"] == "no detectable difference"


def test_planted_leaks_are_told_and_left_out_beside(contest: tuple[Run, Evaluation, list[str], ChatServer]) -> None:
    leak = contest[1].tasks[1]["leak"]
    assert [(one["id"], one["kind"]) for one in leak["overlap"]] == [("p3", "exact"), ("p5", "normalised")]
    assert leak["overlap"][0]["train_where"].endswith("questions.jsonl:1")
    assert (leak["n_clean"], leak["clean"]["n"]) == (22, 22)
    assert "2 of 24" in leak["sentence"]


def test_planted_regressions_are_told(contest: tuple[Run, Evaluation, list[str], ChatServer]) -> None:
    work, found, _, _ = contest
    records = lines(work.folder.evaluation / "answers-chosen.jsonl")
    lost = [one["id"] for one in records if one["base"]["score"] == 1 and one["tuned"]["score"] == 0]
    assert sorted(found.tasks[2]["regressions"]) == sorted(lost)
    assert len(lost) >= 3
    # What was learned is to say `returns`
    assert all(one["tuned"]["text"] == "returns" for one in records)
    calibration = found.tasks[2]["calibration"]
    assert {name: one["n"] for name, one in calibration.items()} == {"base": 24, "tuned": 24, "merged": 24}


def test_verdicts_are_corrected_for_the_number_of_tasks(contest: tuple[Run, Evaluation, list[str], ChatServer]) -> None:
    small, planted, chosen = contest[1].tasks
    # The held-out rows are too few to be a test at all
    assert (small["verdict"], small["p_holm"]) == ("too few items to tell", None)
    assert [task["holm"]["tasks"] for task in (planted, chosen)] == [2, 2]
    assert planted["p_holm"] >= planted["p_value"]


def test_slices_are_of_the_tasks_that_have_the_column(contest: tuple[Run, Evaluation, list[str], ChatServer]) -> None:
    small, planted, chosen = contest[1].tasks
    assert [(one["value"], one["n"]) for one in planted["slices"]] == [("team 0", 12), ("team 1", 12)]
    assert small["slices"] == chosen["slices"] == []


def test_the_page_names_what_was_planted(contest: tuple[Run, Evaluation, list[str], ChatServer]) -> None:
    page = (contest[0].folder.path / "report.html").read_text(encoding="utf-8")
    for told in ("Test items of planted stand in the training rows", "p3", "questions.jsonl:1", "twin", "team 0"):
        assert told in page
    assert "<script" not in page


def test_a_second_call_asks_nobody(contest: tuple[Run, Evaluation, list[str], ChatServer]) -> None:
    work, found, _, server = contest
    before, asked = hashes(work.folder.path), len(server.asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, "sk-secret")
        again = pipeline.evaluate(Run.open(work.folder.path))
    assert again == found
    assert hashes(work.folder.path) == before
    assert len(server.asked) == asked


def test_answers_are_taken_up_where_an_evaluation_broke_off(
    contest: tuple[Run, Evaluation, list[str], ChatServer], tmp_path: Path
) -> None:
    """The server is down by now: what it said before is found again, and only one contestant has to answer."""
    work, found, _, _ = contest
    shutil.copytree(work.folder.path, tmp_path / "run")
    again = Run.open(tmp_path / "run")
    (again.folder.evaluation / "results.json").unlink()
    given = again.folder.evaluation / "given" / "planted--tuned.jsonl"
    given.write_text(given.read_text("utf-8")[:-40], "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, "sk-secret")
        repeated = pipeline.evaluate(again)
    assert [strip(task) for task in repeated.tasks] == [strip(task) for task in found.tasks]
    name = "answers-planted.jsonl"
    assert (again.folder.evaluation / name).read_bytes() == (work.folder.evaluation / name).read_bytes()


def strip(task: dict[str, Any]) -> dict[str, Any]:
    """A task without what depends on the clock."""
    return {key: value for key, value in task.items() if key != "seconds"}


def test_tasks_that_cannot_be_asked_are_refused_before_training(lora_run: SmallRun, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bad.jsonl", [{"prompt": "which?", "completion": "Z"}] * 12)
    task = {"kind": "data", "name": "bad", "test": str(path), "choices": ["A", "B"]}
    recipe = recipe_with(lora_run, tmp_path / "runs", tasks=[task])
    with pytest.raises(FinetuneError, match=r"bad\.jsonl:1: .*'Z'"):
        require_tasks(Run(recipe), tell=lambda _: None)


def test_columns_that_no_task_has_are_refused(lora_run: SmallRun, tmp_path: Path) -> None:
    recipe = recipe_with(lora_run, tmp_path / "runs", slices=["nowhere"])
    with pytest.raises(FinetuneError, match="nowhere"):
        pipeline.evaluate(Run(recipe, Run.open(tmp_path / "runs" / "run").folder))


def test_results_are_strict_json(contest: tuple[Run, Evaluation, list[str], ChatServer]) -> None:
    json.dumps(contest[1].as_dict(), allow_nan=False)
