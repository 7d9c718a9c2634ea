"""`finetune data inspect`: how rows read, what is counted, and what will be learned in colour."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from finetune.cli.output import DONE, MENDABLE, problem_lines, show
from finetune.data import Prepared
from finetune.data.view import as_rich, tokens
from finetune.recipe import Recipe
from finetune.session import Run


def look(recipe: Recipe, rows: int, *, as_json: bool) -> int:
    """Print the certificate and the first training rows."""
    work = Run(recipe)
    prepared = work.data
    if as_json:
        show(_as_json(work, prepared, rows), as_json=True, text="")
        return DONE if prepared.certificate.passed else MENDABLE
    console = Console()
    for row in prepared.train[:rows]:
        console.print(f"\n{row.id}", style="bold")
        console.print(as_rich(row, work.tokenizer))
    console.print()
    certificate = prepared.certificate
    console.print(f"format   {certificate.format}: {certificate.why}", markup=False)
    dropped = sum(certificate.dropped.values())
    console.print(f"rows     {certificate.rows_read:,} read, {certificate.rows_kept:,} kept, {dropped:,} dropped")
    for reason, count in certificate.dropped.items():
        console.print(f"           {count:,} {reason}", markup=False)
    if certificate.left_out_by_sampling:
        console.print(f"           {certificate.left_out_by_sampling:,} left out by data.sample")
    console.print("splits   " + ", ".join(f"{count:,} {name}" for name, count in certificate.splits.items()))
    total, trained = certificate.tokens["total"], certificate.tokens["trained"]
    console.print(f"tokens   {total:,} in the training rows, {trained:,} learned ({trained / max(1, total):.0%})")
    console.print("lengths  " + ", ".join(f"{name} {count:,}" for name, count in certificate.lengths.items()))
    turns = certificate.turns
    console.print(
        f"turns    {turns['learned']:,} learned, {turns['end_of_turn_trained']:,} end in a learned stop token"
    )
    if certificate.problems:
        console.print(problem_lines(certificate.problems), markup=False)
    return DONE if certificate.passed else MENDABLE


def _as_json(work: Run, prepared: Prepared, rows: int) -> dict[str, Any]:
    certificate = prepared.certificate.as_dict()
    examples = [{"id": row.id, "tokens": tokens(row, work.tokenizer)} for row in prepared.train[:rows]]
    return {
        "format": {"name": certificate["format"], "why": certificate["why"]},
        "rows": {
            "read": certificate["rows_read"],
            "kept": certificate["rows_kept"],
            "dropped": certificate["dropped"],
            "left_out_by_sampling": certificate["left_out_by_sampling"],
        },
        "tokens": certificate["tokens"],
        "examples": examples,
        "certificate": certificate,
    }
