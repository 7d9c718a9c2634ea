"""Records as words: the rows of the tables that the report and the model card have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from finetune.evaluation.scoring.scorers import BITS_PER_BYTE
from finetune.evaluation.wording import decimals, percent, with_interval

Fact = tuple[str, str]

PROOFS_OF_MASK = {
    "sentinel": "found by marked contents",
    "prefix": "found by prefixes of the conversation",
    "text": "raw text, every token is learned",
}
GIBIBYTE = 1024**3


def score_rows(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a task's score table shows: trivial baseline, base, every other contestant, and the differences.

    Each row has `label`, `kind` (`baseline`, `base`, `subject`, `other`, `difference`), `score` and `interval` as
    text, and the numbers `value`, `low` and `high`.
    """
    places = decimals(tuple(task["interval"]), 3 if task["unit"] == BITS_PER_BYTE else 2)
    rows = []
    baseline = task["baseline"]
    if baseline:
        rows.append(_row(f"trivial: {baseline['name']}", "baseline", baseline["score"], baseline["interval"], places))
    rows.append(_row("base", "base", task["base"], task["base_interval"], places))
    subject_first = sorted(task["comparisons"].items(), key=lambda entry: entry[0] != task["subject"])
    for name, found in subject_first:
        kind = "subject" if name == task["subject"] else "other"
        rows.append(_row(name, kind, found["tuned"], found["tuned_interval"], places))
    for name, found in subject_first:
        label = f"difference, {name} - base"
        rows.append(_row(label, "difference", found["difference"], found["interval"], places, signed=True))
    return rows


def _row(label: str, kind: str, value: float, interval: Any, places: int, *, signed: bool = False) -> dict[str, Any]:
    low, high = interval
    score, between = with_interval(value, (low, high), places, signed=signed).split(" ", 1)
    return {
        "label": label,
        "kind": kind,
        "score": score,
        "interval": between,
        "value": value,
        "low": low,
        "high": high,
    }


def proof_rows(proofs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the verification table shows, one row a file; shares are rounded down, so 100 % means all."""
    return [
        {
            "file": f"exports/{name}",
            "passed": proof["passed"],
            "runtime": proof["runtime"],
            "sentence": f"exports/{name} {_outcome(proof)}.",
            "kl": f"{proof['kl']:.2e}",
            "kl_bound": f"{proof['max_kl']:g}",
            "kl_max": f"{proof['kl_max']:.2e}",
            "top1": _floored(proof["top1_agreement"]),
            "top1_bound": percent(proof["min_top1"]) if proof["min_top1"] else "none",
            "positions": f"{proof['positions']:,}",
            "greedy": f"{round(proof['greedy_match'] * proof['prompts']):,} of {proof['prompts']:,}",
            "divergence": "" if proof["first_divergence"] is None else f"{proof['first_divergence'] + 1:,}",
            "furthest": f"{proof['log_probability_max_difference']:.2e}",
            "rows": f"{proof['rows']:,}",
            "note": proof["note"],
            "facts": _file_facts(proof),
        }
        for name, proof in proofs.items()
    ]


def _outcome(proof: Mapping[str, Any]) -> str:
    if not proof["passed"]:
        return "does NOT behave like the trained model"
    # Formats without a bound for the likeliest token are too coarse to say so
    return "behaves like the trained model" if proof["min_top1"] else "keeps what files of its format keep"


def _file_facts(proof: Mapping[str, Any]) -> list[Fact]:
    """Return what else is known of a file: prompts, size, speed, and its score; proofs of older runs know less."""
    found: list[Fact] = []
    if proof.get("prompt_parity") is not None:
        share, count = proof["prompt_parity"], proof["conversations"]
        found.append(("Prompts", f"the trained tokens for {round(share * count):,} of {count:,} conversations"))
    if proof.get("size"):
        bits = "" if proof.get("bits_per_weight") is None else f", {proof['bits_per_weight']:.2f} bits a weight"
        found.append(("Size", f"{proof['size'] / 1e6:,.1f} MB{bits}"))
    if proof.get("load_seconds") is not None:
        found.append(("Loading", duration(proof["load_seconds"])))
    if proof.get("tokens_per_second"):
        found.append(("Speed", f"{proof['tokens_per_second']:,.1f} tokens a second, several answers at once"))
    if proof.get("peak_memory"):
        found.append(("Peak memory", f"{proof['peak_memory'] / GIBIBYTE:.2f} GiB"))
    if proof.get("task"):
        found.append(("Task", f"{proof['task']['sentence']}: {proof['task']['verdict']}"))
    return [*found, *(("Problem", problem) for problem in proof.get("problems", ()))]


def _floored(share: float) -> str:
    return f"{math.floor(share * 10_000 + 1e-9) / 100:.2f} %"


def data_facts(certificate: Mapping[str, Any] | None) -> list[Fact]:
    """Return what happened to the rows, from the data certificate; nothing without one."""
    if certificate is None:
        return []
    read, kept = certificate["rows_read"], certificate["rows_kept"]
    facts = [
        ("Files", _files(certificate["files"])),
        ("Read as", f"{certificate['format']}: {certificate['why']}"),
        ("Rows", f"{read:,} read, {kept:,} kept: {_counts(certificate['splits'])}"),
        ("Dropped", "; ".join(f"{reason}: {count:,}" for reason, count in certificate["dropped"].items()) or "none"),
    ]
    if certificate["left_out_by_sampling"]:
        facts.append(("Left out by sampling", f"{certificate['left_out_by_sampling']:,} rows"))
    if certificate["truncated"]:
        facts.append(("Cut to max_length", f"{certificate['truncated']:,} rows"))
    return [*facts, *_finding_facts(certificate), *_token_facts(certificate), *_turn_facts(certificate)]


def _finding_facts(certificate: Mapping[str, Any]) -> list[Fact]:
    """Return what the checks found and what was masked; certificates of older runs know neither."""
    found = [f"{one['kind']} ({one['severity']}): {one['count']:,}" for one in certificate.get("findings", ())]
    masked = [f"{kind}: {count:,}" for kind, count in certificate.get("masked", {}).items()]
    return [
        *([("Found in the rows", "; ".join(found))] if found else []),
        *([("Masked personal data", "; ".join(masked))] if masked else []),
    ]


def _files(hashes: Mapping[str, str]) -> str:
    return ", ".join(f"{PurePath(name).name} (SHA-256 {digest[:12]})" for name, digest in hashes.items())


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _token_facts(certificate: Mapping[str, Any]) -> list[Fact]:
    total, trained = certificate["tokens"]["total"], certificate["tokens"]["trained"]
    lengths = certificate["lengths"]
    proofs = certificate["mask"].items()
    return [
        ("Tokens of the training rows", f"{total:,}, of which {trained:,} are learned ({_floored(trained / total)})")
        if total
        else ("Tokens of the training rows", "none"),
        (
            "Row length in tokens",
            f"shortest {lengths['shortest']:,}, median {lengths['median']:,}, "
            f"95th percentile {lengths['p95']:,}, longest {lengths['longest']:,}",
        ),
        ("Mask", "; ".join(f"{rows:,} rows: {PROOFS_OF_MASK.get(name, name)}" for name, rows in proofs) or "none"),
        ("Rows with nothing to learn", f"{certificate['nothing_to_learn']:,}"),
        ("Begin-of-text tokens", _begin_of_text(certificate["bos"])),
    ]


def _begin_of_text(rows_by_count: Mapping[str, int]) -> str:
    if not rows_by_count:
        return "the tokenizer has none"
    return "; ".join(f"{count} at the start of {rows:,} rows" for count, rows in rows_by_count.items())


def _turn_facts(certificate: Mapping[str, Any]) -> list[Fact]:
    turns, learned = certificate["turns"], certificate["turns"]["learned"]
    facts = []
    if learned:
        facts = [
            ("End of turn", f"learned in {turns['end_of_turn_trained']:,} of {learned:,} assistant turns"),
            (
                "Prompts",
                f"the same tokens in training and when answering for {certificate['prompt_parity']:,} "
                f"of {learned:,} assistant turns",
            ),
        ]
    if turns["eos_appended"]:
        facts.append(("End of text appended", f"{turns['eos_appended']:,} rows, as the template writes no end of turn"))
    if certificate["spliced"]:
        facts.append(("Answers put after the generation prompt", f"{certificate['spliced']:,} rows"))
    if certificate["rewritten"]:
        facts.append(("Changed by the template", f"{certificate['rewritten']:,} messages"))
    if certificate["neutralised"]:
        facts.append(("Control tokens in texts", f"{certificate['neutralised']:,}, kept as plain text"))
    if certificate["stop_tokens"]:
        facts.append(("Answers end at", " ".join(certificate["stop_tokens"])))
    if certificate["template"]:
        facts.append(("Chat template", f"SHA-256 {certificate['template'][:12]}"))
    return facts


def training_facts(records: Mapping[str, Any]) -> list[Fact]:
    """Return how the model was trained, as far as the records say."""
    base, identity, done = records["base"], records["identity"], records["stages"].get("train") or {}
    return [
        *_base_facts(base),
        *_method_facts(identity),
        *_schedule_facts(identity, records["metrics"]),
        *(_outcome_facts(done) if done else []),
        *_surroundings(records),
    ]


def _base_facts(base: Mapping[str, Any]) -> list[Fact]:
    if not base:
        return []
    revision = f", revision {base['revision']}" if base.get("revision") else ""
    return [("Base model", f"{base['name']}{revision}"), ("Base fingerprint", str(base["fingerprint"])[:80])]


def _method_facts(identity: Mapping[str, Any]) -> list[Fact]:
    kind = identity.get("method.kind")
    if kind is None:
        return []
    told = ("quantization", "rank", "alpha", "dropout", "targets", "use_rslora", "use_dora", "modules_to_save")
    settings = {name: identity.get(f"method.{name}") for name in told}
    text = ", ".join(f"{name} {_plain(value)}" for name, value in settings.items() if value not in (None, False, [], 0))
    return [("Method", f"{kind}: {text}" if text else str(kind)), ("Objective", str(identity["objective.kind"]))]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _schedule_facts(identity: Mapping[str, Any], metrics: list[dict[str, Any]]) -> list[Fact]:
    facts = []
    rate = identity.get("train.learning_rate")
    logged = [line["learning_rate"] for line in metrics if line.get("learning_rate") is not None]
    if rate is not None:
        facts.append(("Learning rate", f"{rate:g}, {identity['train.schedule']} schedule"))
    elif logged:
        facts.append(("Learning rate", f"{max(logged):.3g} at its highest"))
    if identity.get("train.batch_size") is not None:
        facts.append(("Batch", f"{identity['train.batch_size']:,} rows a step"))
    if identity.get("run.seed") is not None:
        facts.append(("Seed", str(identity["run.seed"])))
    return facts


def _outcome_facts(done: Mapping[str, Any]) -> list[Fact]:
    validation = done["validation_loss"]
    facts = []
    if done.get("parameters"):
        share = done["trainable"] / done["parameters"]
        facts.append(
            ("Parameters that learn", f"{done['trainable']:,} of {done['parameters']:,} ({100 * share:.2f} %)")
        )
    facts += [
        ("Steps", f"{done['steps']:,} ({done['epochs']:.3g} epochs); step {done['kept_step']:,} kept"),
        ("Training loss, last step", f"{done['loss']:.4f} nats a token"),
        (
            "Validation loss, kept step",
            "no validation rows" if validation is None else f"{validation:.4f} nats a token",
        ),
        ("Tokens seen", f"{done['tokens']:,}"),
        ("Speed", f"{done['tokens_per_second']:,.0f} tokens a second"),
        ("Time", duration(done["seconds"])),
        ("Peak memory", f"{done['peak_memory'] / GIBIBYTE:.2f} GiB"),
    ]
    if done.get("forgetting") is not None:
        beyond = ", more than the recipe allows: no checkpoint kept below that" if done["forgets"] else ""
        facts.append(("General texts, kept step", f"{done['forgetting']:+.4f} bits a byte against the base{beyond}"))
    if done["resumed_from"] is not None:
        facts.append(("Resumed", f"from step {done['resumed_from']:,}; speed and time are of the last part"))
    return facts


def _surroundings(records: Mapping[str, Any]) -> list[Fact]:
    machine, versions = records["machine"], records["versions"]
    facts = []
    if machine:
        memory = f"{machine['memory'] / GIBIBYTE:.0f} GiB"
        facts.append(("Machine", f"{machine['name']} ({machine['device']}), {machine['cores']} CPU cores, {memory}"))
    if versions:
        facts.append(("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return facts


def duration(seconds: float) -> str:
    """`48 s`, `5 min 12 s`, `2 h 3 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
