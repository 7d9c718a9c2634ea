"""The data certificate: what will be learned, counted over every row before step 1, and refused when it is nothing.

It is kept with the run as `data/certificate.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.chat import Encoded
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
        left_out_by_sampling: training rows not drawn by `data.sample`.
        splits: rows of each split.
        tokens: tokens of the training rows, and how many of them are labels.
        lengths: shortest, median, 95th percentile and longest training row, in tokens.
        nothing_to_learn: training rows without a label.
        turns: learned assistant turns, how many end in a trained end-of-turn token, and how many got the
            tokenizer's end of text because the template writes none.
        bos: training rows by number of begin-of-text tokens at their start.
        truncated: rows whose prompt was cut, and raw texts that were cut into pieces.
        neutralised: control tokens in users' texts that were kept as text.
        prompt_parity: learned turns whose prompt has the same tokens in training and when answering.
        spliced: rows whose last answer was put after the generation prompt, because the template begins given
            answers otherwise.
        rewritten: messages that the template does not reproduce word for word.
        mask: how masks were proven (`sentinel`, `prefix`, `text`), by rows.
        stop_tokens: what ends an answer.
        template: SHA-256 of the chat template; empty for raw text.
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


def certify(
    encoded: Sequence[Encoded],
    accounting: Accounting,
    *,
    where: str,
    bos_token_id: int | None,
    stop_tokens: Sequence[str],
    template: str,
    notes: Sequence[Problem] = (),
) -> Certificate:
    """Count everything over the training rows and judge it.

    Args:
        encoded: every training row.
        accounting: rows read, dropped and split.
        where: place of `data` in the recipe.
        bos_token_id: the tokenizer's begin-of-text token.
        stop_tokens: what ends an answer, as text.
        template: the chat template's text; empty for raw text.
        notes: what earlier steps noticed.
    """
    lengths = np.array([len(row.input_ids) for row in encoded] or [0])
    labels = np.array([int(row.trained[1:].sum()) for row in encoded] or [0])
    turns = [turn for row in encoded for turn in row.turns]
    bos = Counter(str(_leading(row.input_ids, bos_token_id)) for row in encoded) if bos_token_id is not None else {}
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
            "learned": len(turns),
            "end_of_turn_trained": sum(turn.ends_with_stop for turn in turns),
            "eos_appended": sum(row.stop_appended for row in encoded),
        },
        bos=dict(sorted(bos.items())),
        truncated=accounting.truncated,
        neutralised=sum(row.neutralised for row in encoded),
        prompt_parity=sum(turn.prompt_parity for turn in turns),
        spliced=sum(row.spliced for row in encoded),
        rewritten=sum(row.rewritten for row in encoded),
        mask=dict(Counter(row.proof for row in encoded)),
        stop_tokens=tuple(stop_tokens),
        template=hashlib.sha256(template.encode()).hexdigest() if template else "",
    )
    return replace(certificate, problems=(*notes, *_judge(certificate, where)))


def _leading(input_ids: NDArray[np.int32], token: int) -> int:
    """Count how many times a token stands at the start of a row (SmolLM2's BOS opens every turn as well)."""
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
