"""The data certificate: what will be learned, counted over every row before step 1, and refused when it is nothing.

It is kept with the run as `data/certificate.json`.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.chat.encoder import Encoded
from finetune.data.checks import Finding
from finetune.errors import FinetuneError, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What was read, kept, dropped and will be learned.

    Attributes:
        format: how rows were read, and `why`.
        files: SHA-256 of each file's content.
        rows_read: records found in the files.
        rows_kept: rows that are trained on, validated on or tested.
        dropped: rows left out, by reason.
        left_out_by_sampling: training rows not drawn by `data.sample`, and rows that a name's `#500` did not draw.
        splits: rows of each split.
        tokens: tokens of the training rows, and how many of them are labels.
        lengths: shortest, median, 95th percentile and longest training row, in tokens.
        nothing_to_learn: training rows without a label.
        turns: learned assistant turns, how many end in a trained end-of-turn token, and how many got the
            tokenizer's end of text because the template writes none.
        bos: training rows by number of begin-of-text tokens at their start.
        truncated: rows whose prompt was cut, and raw texts that were cut into pieces.
        pieces: pieces of each split, of raw text: a text that fits is one piece.
        sources: what became of the rows of each source: format, weight, rows read, kept, dropped and left out by
            sampling, rows drawn for training (as often as the weight says) and their tokens.
        neutralised: control tokens in users' texts that were kept as text.
        prompt_parity: learned turns whose prompt has the same tokens in training and when answering.
        spliced: rows whose last answer was put after the generation prompt, because the template begins given
            answers otherwise.
        rewritten: messages that the template does not reproduce word for word.
        mask: how masks were proven (`sentinel`, `prefix`, `text`), by rows.
        stop_tokens: what ends an answer.
        template: SHA-256 of the chat template; empty for raw text.
        masked: pieces of personal data that were replaced by placeholders, by kind.
        findings: what the checks found in the rows; `problems` tells them too.
        problems: all that was noticed.
    """

    format: str
    why: str
    files: Mapping[str, str]
    rows_read: int
    rows_kept: int
    dropped: Mapping[str, int]
    left_out_by_sampling: int
    splits: Mapping[str, int]
    tokens: Mapping[str, int]
    lengths: Mapping[str, int]
    nothing_to_learn: int
    turns: Mapping[str, int]
    bos: Mapping[str, int]
    truncated: int
    neutralised: int
    prompt_parity: int
    spliced: int
    rewritten: int
    mask: Mapping[str, int]
    stop_tokens: tuple[str, ...]
    template: str
    pieces: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    masked: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = field(default=())
    problems: tuple[Problem, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return not any(problem.severity == "error" for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with `passed` and a hash over all the rest."""
        values = asdict(self)
        values["passed"] = self.passed
        text = json.dumps(values, sort_keys=True, ensure_ascii=False)
        return {**values, "hash": hashlib.sha256(text.encode()).hexdigest()}

    def require(self) -> None:
        """Refuse to train on what would teach nothing.

        Raises:
            FinetuneError: every error of the certificate.
        """
        errors = [problem for problem in self.problems if problem.severity == "error"]
        if errors:
            raise FinetuneError.of(errors)


@dataclass(frozen=True, slots=True)
class Accounting:
    """What happened to rows before they were encoded."""

    format: str
    why: str
    files: Mapping[str, str]
    rows_read: int
    dropped: Mapping[str, int]
    left_out_by_sampling: int
    splits: Mapping[str, int]
    truncated: int
    pieces: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    masked: Mapping[str, int] = field(default_factory=dict)


def certify(
    encoded: Iterable[Encoded],
    accounting: Accounting,
    *,
    where: str,
    bos_token_id: int | None,
    stop_tokens: Sequence[str],
    template: str,
    notes: Sequence[Problem] = (),
    findings: Sequence[Finding] = (),
) -> Certificate:
    """Count everything over the training rows and judge it.

    Args:
        encoded: every training row; they are gone through once.
        accounting: rows read, dropped and split.
        where: place of `data` in the recipe.
        bos_token_id: the tokenizer's begin-of-text token.
        stop_tokens: what ends an answer, as text.
        template: the chat template's text; empty for raw text.
        notes: what earlier steps noticed.
        findings: what the checks found.
    """
    counts = _Counts()
    for row in encoded:
        counts.add(row, bos_token_id)
    lengths, labels = np.array(counts.lengths or [0]), np.array(counts.labels or [0])
    summed = counts.summed
    certificate = Certificate(
        format=accounting.format,
        why=accounting.why,
        files=accounting.files,
        rows_read=accounting.rows_read,
        rows_kept=sum(accounting.splits.values()),
        dropped=accounting.dropped,
        left_out_by_sampling=accounting.left_out_by_sampling,
        splits=accounting.splits,
        tokens={"total": int(lengths.sum()), "trained": int(labels.sum())},
        lengths={
            "shortest": int(lengths.min()),
            "median": int(np.median(lengths)),
            "p95": int(np.percentile(lengths, 95)),
            "longest": int(lengths.max()),
        },
        nothing_to_learn=int((labels == 0).sum()),
        turns={
            "learned": summed["turns"],
            "end_of_turn_trained": summed["ended"],
            "eos_appended": summed["stop_appended"],
        },
        bos=dict(sorted(counts.bos.items())),
        truncated=accounting.truncated,
        pieces=accounting.pieces,
        sources=accounting.sources,
        masked=accounting.masked,
        findings=tuple(findings),
        neutralised=summed["neutralised"],
        prompt_parity=summed["prompt_parity"],
        spliced=summed["spliced"],
        rewritten=summed["rewritten"],
        mask=dict(counts.mask),
        stop_tokens=tuple(stop_tokens),
        template=hashlib.sha256(template.encode()).hexdigest() if template else "",
    )
    told = [finding.problem(where) for finding in findings]
    return replace(certificate, problems=(*notes, *told, *_judge(certificate, where)))


@dataclass(slots=True)
class _Counts:
    """What is counted over rows as they pass."""

    lengths: array[int] = field(default_factory=lambda: array("q"))
    labels: array[int] = field(default_factory=lambda: array("q"))
    bos: Counter[str] = field(default_factory=Counter)
    mask: Counter[str] = field(default_factory=Counter)
    summed: Counter[str] = field(default_factory=Counter)

    def add(self, row: Encoded, bos_token_id: int | None) -> None:
        self.lengths.append(len(row.input_ids))
        self.labels.append(int(np.count_nonzero(row.trained[1:])))
        if bos_token_id is not None:
            self.bos[str(_leading(row.input_ids, bos_token_id))] += 1
        self.mask[row.proof] += 1
        for turn in row.turns:
            self.summed["turns"] += 1
            self.summed["ended"] += turn.ends_with_stop
            self.summed["prompt_parity"] += turn.prompt_parity
        for name in ("stop_appended", "neutralised", "spliced", "rewritten"):
            self.summed[name] += getattr(row, name)


def _leading(input_ids: NDArray[np.int32], token: int) -> int:
    """Count how many times a token stands at the start of a row (SmolLM2's BOS opens every turn as well)."""
    if not len(input_ids) or input_ids[0] != token:
        return 0
    others = np.flatnonzero(input_ids != token)
    return int(others[0]) if len(others) else len(input_ids)


def _judge(certificate: Certificate, where: str) -> list[Problem]:
    return [
        *_judge_learning(certificate, where),
        *_judge_turns(certificate, where),
        *_judge_writing(certificate, where),
    ]


def _judge_learning(certificate: Certificate, where: str) -> list[Problem]:
    if certificate.tokens["trained"] == 0:
        what, fix = "no token of any training row would be learned", "look at: finetune data inspect RECIPE"
        return [Problem(where, what, fix)]
    if certificate.nothing_to_learn:
        what = f"{certificate.nothing_to_learn:,} training rows have no token to learn from"
        return [Problem(where, what, "look at them: finetune data inspect RECIPE", "warning")]
    return []


def _judge_turns(certificate: Certificate, where: str) -> list[Problem]:
    problems = []
    learned, ended = certificate.turns["learned"], certificate.turns["end_of_turn_trained"]
    if ended < learned:
        what = (
            f"in {learned - ended:,} of {learned:,} assistant turns the end of the turn is not learned, "
            "so the model would not learn to stop there"
        )
        fix = "set model.chat_template to one that ends assistant turns with a control token"
        problems.append(Problem(where, what, fix, "error" if ended == 0 else "warning"))
    if appended := certificate.turns["eos_appended"]:
        what = f"the chat template writes no end-of-turn; the tokenizer's end of text was appended to {appended:,} rows"
        problems.append(Problem(where, what, "", "note"))
    if certificate.prompt_parity < learned:
        what = (
            f"in {learned - certificate.prompt_parity:,} of {learned:,} assistant turns the template's generation "
            "prompt is not how it begins a given answer, so training and answering see different prompts"
        )
        fix = "set model.chat_template to a template whose generation prompt begins every answer"
        problems.append(Problem(where, what, fix, "warning"))
    return problems


def _judge_writing(certificate: Certificate, where: str) -> list[Problem]:
    problems = []
    if certificate.rewritten:
        what = (
            f"the chat template does not write {certificate.rewritten:,} messages word for word "
            "(it strips reasoning or converts texts)"
        )
        problems.append(Problem(where, what, "look at them: finetune data inspect RECIPE", "warning"))
    most = max((int(count) for count in certificate.bos), default=0)
    if most > 1:
        what = f"rows begin with up to {most} begin-of-text tokens: template and tokenizer each add one"
        problems.append(Problem(where, what, "remove bos_token from the chat template"))
    return problems
