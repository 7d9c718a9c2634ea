"""What an evaluation knows beside its scores, as tables: slices, calibration, leaks, forgetting, cost, sameness.

`task_panels(task)` and `run_panels(results)` read `evaluation/results.json`; the report, the model card and notebooks
show the same tables. What an older run does not know has no table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.errors import some
from finetune.evaluation.compare import BASE
from finetune.evaluation.reporting.facts import duration, score_rows
from finetune.evaluation.scoring.scorers import BITS_PER_BYTE
from finetune.evaluation.wording import decimals, percent, with_interval

GIBIBYTE = 1024**3
CALIBRATION = "Calibration"
SHOWN_LOST = 10
SHOWN_LEAKS = 20
"""Overlapping items named on the page; the rest is in evaluation/results.json."""
SHOWN_HASH = 12

KINDS_OF_LEAK = {
    "exact": "the same to the letter",
    "normalised": "the same but for case and punctuation",
    "13-gram": "13 words in a row",
    "contained": "stands inside a longer row",
}
COSTS = (
    "one request, median",
    "one request, 95th percentile",
    "tokens a second",
    "peak memory",
    "file size",
    "price of 1,000 requests",
)
SAMENESS = ("prompts", "template", "tokenizer", "dtype", "batch", "versions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A table, with what it comes to and what a reader has to know of it.

    The first `words` columns hold words, the others numbers.
    """

    title: str
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


def task_panels(task: Mapping[str, Any]) -> list[Panel]:
    """Return slices, calibration, judgements and leaks of a task (an entry of `tasks`), as far as they are known."""
    found = (_slices(task), _calibration(task), _judge(task), _leak(task), _clean(task))
    return [panel for panel in found if panel is not None]


def run_panels(results: Mapping[str, Any]) -> list[Panel]:
    """Return what holds for all tasks of `evaluation/results.json`: forgetting, cost of serving, proof of sameness."""
    found = (
        _forgetting(results.get("forgetting")),
        _cost(results.get("cost") or {}, results["tasks"]),
        _sameness(results.get("sameness")),
    )
    return [panel for panel in found if panel is not None]


def _judge(task: Mapping[str, Any]) -> Panel | None:
    judgements = task.get("judge")
    if not judgements:
        return None
    return Panel(
        title="Judge",
        notes=(
            "A language model compared the answers with those of base, each pair in both orders. It is an opinion "
            "beside the score, worth what its agreement with itself and with the scorer says.",
        ),
        head=("contestant", "what the judge's words allow to conclude", "pairs", "agrees with itself"),
        rows=tuple(
            (name, str(one["sentence"]), f"{one['n']:,} of {one['drawn']:,}", _share(one["agreement"]))
            for name, one in judgements.items()
        ),
        words=2,
    )


def _share(share: float | None) -> str:
    return "nobody was asked" if share is None else percent(share)


def _slices(task: Mapping[str, Any]) -> Panel | None:
    slices = task.get("slices")
    if not slices:
        return None
    least = 3 if task["unit"] == BITS_PER_BYTE else 2
    return Panel(
        title="Slices",
        notes=(
            f"The same comparison ({task['subject']} against base) within parts of the items. Each part holds fewer "
            "items than the whole, so less can be told; verdicts are corrected for the number of parts (Holm).",
        ),
        head=("slice", "verdict", "items", "base", str(task["subject"]), "difference"),
        rows=tuple(_slice(one, least) for one in slices),
        words=2,
    )


def _slice(one: Mapping[str, Any], least: int) -> tuple[str, ...]:
    interval = (one["interval"][0], one["interval"][1])
    places = decimals(interval, least)
    return (
        f"{one['column']} = {one['value']}",
        str(one["verdict"]),
        f"{one['n']:,}",
        f"{one['base']:.{places}f}",
        f"{one['tuned']:.{places}f}",
        with_interval(one["difference"], interval, places, signed=True),
    )


def _calibration(task: Mapping[str, Any]) -> Panel | None:
    calibration = task.get("calibration")
    if not calibration:
        return None
    return Panel(
        title=CALIBRATION,
        notes=(
            "How far the probability given to the chosen answer is from the share that is right. Expected calibration "
            "error: mean distance over bins, 0 is best, and what chance alone would show. Brier score: squared error "
            "of the probabilities of all choices, 0 is best.",
        ),
        head=("contestant", "answers", "expected calibration error", "by chance alone", "Brier score"),
        rows=tuple(
            (
                name,
                f"{found['n']:,}",
                f"{found['ece']:.3f}",
                f"{found['ece_if_calibrated']:.3f}" if "ece_if_calibrated" in found else "unknown",
                f"{found['brier']:.3f}",
            )
            for name, found in calibration.items()
        ),
    )


def _leak(task: Mapping[str, Any]) -> Panel | None:
    leak = task.get("leak")
    if not leak:
        return None
    overlap = sorted(leak["overlap"], key=lambda one: -one["share"])
    left = f"{SHOWN_LEAKS} of {len(overlap):,} are named here; all are in evaluation/results.json."
    return Panel(
        title="Test items in the training rows",
        sentences=(str(leak["sentence"]),),
        notes=(left,) if len(overlap) > SHOWN_LEAKS else (),
        head=("test item", "what they share", "training row", "share of the item"),
        rows=tuple(
            (
                str(one["id"]),
                KINDS_OF_LEAK.get(one["kind"], str(one["kind"])),
                " at ".join(str(one[key]) for key in ("train_id", "train_where") if one.get(key)),
                percent(round(one["share"], 3)),
            )
            for one in overlap[:SHOWN_LEAKS]
        ),
        words=3,
    )


def _clean(task: Mapping[str, Any]) -> Panel | None:
    """Set the comparison on the items that no training row shares beside that on all items."""
    leak = task.get("leak")
    if not leak or not leak.get("clean"):
        return None
    least = 3 if task["unit"] == BITS_PER_BYTE else 2
    return Panel(
        title="The score without those items",
        head=("items", "verdict", "number", "base", str(task["subject"]), "difference"),
        rows=(("all", *_compared(task, least)), ("clean", *_compared(leak["clean"], least))),
        words=2,
    )


def _compared(found: Mapping[str, Any], least: int) -> tuple[str, ...]:
    interval = (found["interval"][0], found["interval"][1])
    places = decimals(interval, least)
    return (
        str(found["verdict"]),
        f"{found['n']:,}",
        *(with_interval(found[name], tuple(found[f"{name}_interval"]), places) for name in ("base", "tuned")),
        with_interval(found["difference"], interval, places, signed=True),
    )


def _forgetting(found: Mapping[str, Any] | None) -> Panel | None:
    if not found:
        return None
    kl, lost = found["kl"], found.get("lost") or ()
    margins = {"text_bits": found["margin"], "choices": found.get("questions_margin", found["margin"])}
    named = f" Questions that base had right and tuned has wrong: {some(lost, SHOWN_LOST)}." if lost else ""
    return Panel(
        title="Forgetting",
        sentences=(str(found["sentence"]),),
        notes=(
            f"Measured on {found['items']:,} general items beside the task. On neutral prompts the KL divergence to "
            f"the base is {kl['mean']:.3g} nats a token on average, {kl['max']:.3g} at most, over "
            f"{kl['positions']:,} positions.{named}",
        ),
        head=("what", "verdict", "items", "base", "tuned", "difference", "margin"),
        rows=tuple(
            _ability(found[key], label, least, margins[key])
            for key, label, least in (
                ("text_bits", "general texts, bits a byte (lower is better)", 3),
                ("choices", "general questions, share right", 2),
            )
            if found.get(key)
        ),
        words=2,
    )


def _ability(measured: Mapping[str, Any], label: str, least: int, margin: float) -> tuple[str, ...]:
    interval = (measured["interval"][0], measured["interval"][1])
    places = decimals(interval, least)
    return (
        label,
        str(measured.get("verdict", "")),
        f"{measured['n']:,}",
        f"{measured['base']:.{places}f}",
        f"{measured['tuned']:.{places}f}",
        with_interval(measured["difference"], interval, places, signed=True),
        f"{margin:g}",
    )


# ------------------------------------------------------------------------------------------------ cost of serving


def _cost(cost: Mapping[str, Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> Panel | None:
    if not cost:
        return None
    scores = [(f"{task['scorer']} on {task['task']}", _scores(task)) for task in tasks]
    return Panel(
        title="Cost of serving",
        sentences=tuple(build_or_buy(cost)),
        notes=tuple(_measured_on(cost)),
        head=("what", *cost),
        rows=(
            *((label, *(found.get(name, "not asked") for name in cost)) for label, found in scores),
            *zip(COSTS, *map(_cost_cells, cost.values()), strict=True),
        ),
    )


def _scores(task: Mapping[str, Any]) -> dict[str, str]:
    """Return each contestant's score on a task with its interval."""
    rows = score_rows(task)
    kinds = ("base", "subject", "other")
    return {row["label"]: f"{row['score']} {row['interval']}" for row in rows if row["kind"] in kinds}


def _cost_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    memory, size, price = one.get("peak_memory"), one.get("size_bytes"), one.get("price_per_thousand_requests")
    return (
        latency(one["latency_p50"]),
        latency(one["latency_p95"]),
        "unknown" if one["tokens_per_second"] is None else f"{one['tokens_per_second']:,.1f}",
        "unknown" if memory is None else f"{memory / GIBIBYTE:.2f} GiB",
        "unknown" if size is None else f"{size / 1e6:,.1f} MB",
        "none asked" if price is None else money(price, one.get("currency")),
    )


def latency(seconds: float) -> str:
    """`450 ms`, `1.25 s`."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def money(amount: float, currency: str | None) -> str:
    """`1.20 USD`, with as many decimals as small amounts need."""
    return f"{amount:,.2f} {currency or ''}".strip() if amount >= 1 else f"{amount:.3g} {currency or ''}".strip()


def _measured_on(cost: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say for each machine who was timed there, over how many requests."""
    places: dict[tuple[str, int], list[str]] = {}
    for name, one in cost.items():
        places.setdefault((str(one["hardware"]), one["requests"]), []).append(name)
    return [
        f"{', '.join(names)}: {requests:,} requests one after another, after warm-up, on {hardware}."
        for (hardware, requests), names in places.items()
    ]


def build_or_buy(cost: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say at which price of a machine an own model costs as much as a paid one.

    An own model answers a thousand requests one after another in a thousand times its median latency; the machine may
    cost, for that time, what the paid one asks for a thousand requests. Answering several at once only makes the own
    model cheaper.
    """
    paid = {name: one for name, one in cost.items() if one.get("price_per_thousand_requests")}
    own = {name: one for name, one in cost.items() if one.get("price_per_thousand_requests") is None}
    # The untuned base is nobody's product where there is another
    own = {name: one for name, one in own.items() if name != BASE} or own
    said = []
    for seller, offer in paid.items():
        price = offer["price_per_thousand_requests"]
        for name, one in own.items():
            seconds = 1000 * one["latency_p50"]
            said.append(
                f"1,000 requests to {seller} cost {money(price, offer.get('currency'))}. {name} answers as many one "
                f"after another in {duration(seconds)}, so it is cheaper where its machine costs less than "
                f"{money(price * 3600 / seconds, offer.get('currency'))} an hour."
            )
    return said


# ---------------------------------------------------------------------------------------------- proof of sameness


def _sameness(found: Mapping[str, Any] | None) -> Panel | None:
    if not found:
        return None
    rows = [("items", _short(found["items"]))] if found.get("items") else []
    rows += [(key, _each(found[key])) for key in SAMENESS if found.get(key)]
    return Panel(
        title="Proof of sameness",
        sentences=(str(found["sentence"]),),
        head=("what", "found"),
        rows=tuple(rows),
        words=2,
    )


def _each(values: Mapping[str, Any] | str) -> str:
    """Say a value that all have once, and different ones by name."""
    if not isinstance(values, Mapping):
        return _short(values)
    different = {_short(value) for value in values.values()}
    if len(different) == 1 and len(values) > 1:
        return f"{different.pop()} for {', '.join(values)}"
    return ", ".join(f"{name}: {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    text = str(value)
    hashed = len(text) == 64 and all(character in "0123456789abcdef" for character in text)
    return f"SHA-256 {text[:SHOWN_HASH]}" if hashed else text
