"""What stages hand back: plain values, written to the run folder, read again, printed and shown in notebooks."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from finetune.data import Certificate, Prepared
from finetune.errors import FinetuneError, Problem, nearest
from finetune.recipe import Export, GgufExport, MergedExport, OllamaExport, Recipe
from finetune.rundir import RunFolder, write_json, write_json_lines

if TYPE_CHECKING:
    from finetune.exporting import ProofRow, Verification
    from finetune.training import Training

# Rows that exported files are proven on: about 2,000 positions of a short-answer task, a few seconds on a CPU
PROOF_ROWS = 16

# Tables and problems on a notebook's page, readable on a light and on a dark one
LEFT = "text-align:left;vertical-align:top"
WRAPPED = "white-space:pre-wrap;text-align:left"
TINTS = {"error": "#d92d20", "warning": "#c2570c", "note": "#697586"}


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found; `certificate` is None when the data could not be prepared."""

    problems: tuple[Problem, ...]
    certificate: dict[str, Any] | None

    @property
    def passed(self) -> bool:
        return not any(problem.severity == "error" for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        return {"problems": [problem.as_dict() for problem in self.problems], "certificate": self.certificate}

    def _repr_html_(self) -> str:
        from finetune.evaluation.reporting.facts import data_facts

        outcome = "ready to train" if self.passed else "not ready to train"
        facts = _table(("data", ""), data_facts(self.certificate)) if self.certificate else ""
        return f"<p><b>{outcome}</b></p>" + "".join(map(_problem, self.problems)) + facts


def _problem(problem: Problem) -> str:
    tint = TINTS[problem.severity]
    return f'<pre style="{WRAPPED}"><b style="color:{tint}">{problem.severity}</b> {html.escape(str(problem))}</pre>'


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The comparison of tuned and base (the keys are those of `evaluation/results.json`).

    Attributes:
        tasks: one entry a task.
        forgetting: what the tuned model lost of what its base knew, None where it was not measured.
        cost: what an answer costs each contestant.
        sameness: the proof that all were asked the same.
    """

    tasks: tuple[dict[str, Any], ...]
    forgetting: dict[str, Any] | None = None
    cost: dict[str, Any] = field(default_factory=dict)
    sameness: dict[str, Any] | None = None

    def write(self, folder: RunFolder, answers: Mapping[str, list[dict[str, Any]]]) -> None:
        """Write `evaluation/`: every answer, a file a task, then the results."""
        from finetune.evaluation import answers_name

        for task, records in answers.items():
            write_json_lines(folder.evaluation / answers_name(task), records)
        write_json(self.path(folder), self.as_dict())

    @staticmethod
    def path(folder: RunFolder) -> Path:
        """Return where results are kept."""
        return folder.evaluation / "results.json"

    @classmethod
    def read(cls, folder: RunFolder) -> Evaluation:
        """Read `evaluation/results.json`.

        Raises:
            FinetuneError: the run has not been evaluated, or the file is damaged.
        """
        found = _read(cls.path(folder), "finetune evaluate RUN")
        return cls(tuple(found["tasks"]), found.get("forgetting"), found.get("cost") or {}, found.get("sameness"))

    @property
    def verdicts(self) -> list[str]:
        """The verdict of each task, corrected for their number; `better but forgets` is one."""
        from finetune.evaluation import run_verdict

        return [run_verdict(task, self.forgetting) for task in self.tasks]

    def meets(self, requirement: str) -> bool:
        """Whether every verdict is what the recipe's `evaluate.require` asks for."""
        allowed = {
            "better": {"better"},
            "not_worse": {"better", "better but forgets", "no detectable difference", "too few items to tell"},
        }
        return requirement == "nothing" or all(verdict in allowed[requirement] for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        return {
            "tasks": list(self.tasks),
            "forgetting": self.forgetting,
            "cost": self.cost,
            "sameness": self.sameness,
        }

    @property
    def sentences(self) -> list[str]:
        """What can be concluded, a sentence a task, and what was forgotten."""
        from finetune.evaluation import outcomes

        return [one.text for one in outcomes(self.tasks, self.forgetting)]

    def _repr_html_(self) -> str:
        from finetune.evaluation import evaluation_fragment

        return evaluation_fragment(self.as_dict())


@dataclass(frozen=True, slots=True)
class Exports:
    """Every exported file with its proof (the keys of a proof are those of `exports/verification.json`)."""

    proofs: dict[str, dict[str, Any]]

    @classmethod
    def write(cls, folder: RunFolder, proofs: Mapping[str, Verification]) -> Exports:
        """Add proofs to `exports/verification.json`."""
        path = cls.path(folder)
        before = cls.read(folder).proofs if path.exists() else {}
        exports = cls({**before, **{name: proof.as_dict() for name, proof in proofs.items()}})
        write_json(path, exports.proofs)
        return exports

    @classmethod
    def read(cls, folder: RunFolder) -> Exports:
        """Read `exports/verification.json`.

        Raises:
            FinetuneError: nothing has been exported, or the file is damaged.
        """
        return cls(_read(cls.path(folder), "finetune export RUN"))

    @staticmethod
    def path(folder: RunFolder) -> Path:
        """Return where proofs are kept."""
        return folder.exports / "verification.json"

    @classmethod
    def whole(cls, folder: RunFolder, names: Iterable[str]) -> bool:
        """Whether the proofs and every one of these files are still there."""
        return cls.path(folder).exists() and all((folder.exports / name).exists() for name in names)

    @property
    def passed(self) -> bool:
        return all(proof["passed"] for proof in self.proofs.values())

    def _repr_html_(self) -> str:
        from finetune.evaluation.reporting.facts import proof_rows

        head = ("file", "verification", "mean KL (nats)", "same likeliest token", "equal greedy answers", "on disk")
        return _table(
            head,
            [
                (
                    row["file"],
                    "passed" if row["passed"] else "FAILED",
                    f"{row['kl']} (at most {row['kl_bound']})",
                    f"{row['top1']} of {row['positions']} positions (at least {row['top1_bound']})",
                    row["greedy"],
                    self.proofs[name]["path"],
                )
                for name, row in zip(self.proofs, proof_rows(self.proofs), strict=True)
            ],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished run."""

    run: str
    data: dict[str, Any]
    train: dict[str, Any]
    evaluation: Evaluation
    exports: Exports
    report: str
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "data": self.data,
            "train": self.train,
            "evaluation": self.evaluation.as_dict(),
            "exports": self.exports.proofs,
            "verdict": self.evaluation.verdicts[0],
            "passed": self.passed,
            "report": self.report,
        }

    def _repr_html_(self) -> str:
        places = _table(("written", ""), [("run folder", self.run), ("report", self.report)])
        return self.evaluation._repr_html_() + self.exports._repr_html_() + places


def collect(folder: RunFolder, recipe: Recipe, evaluation: Evaluation, exports: Exports, page: Path) -> RunResult:
    """Put a finished run's results together."""
    return RunResult(
        run=str(folder.path),
        data=_read(folder.data / "certificate.json", "finetune run RECIPE"),
        train=folder.finished("train") or {},
        evaluation=evaluation,
        exports=exports,
        report=str(page),
        passed=evaluation.meets(recipe.evaluate.require) and exports.passed,
    )


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise FinetuneError(f"there is no {path.name} yet", where=str(path.parent), fix=remedy) from error
    except ValueError as error:
        fix = f"delete it, then: {remedy}"
        raise FinetuneError(f"{path.name} is damaged: {error}", where=str(path), fix=fix) from error


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f'<{tag} style="{LEFT}">{html.escape(cell)}</{tag}>' for cell in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', head)}</thead><tbody>{body}</tbody></table>"


def data_line(certificate: Certificate) -> str:
    """Say the data stage in a line."""
    rows = ", ".join(f"{count:,} {name}" for name, count in certificate.splits.items())
    total, trained = certificate.tokens["total"], certificate.tokens["trained"]
    dropped = sum(certificate.dropped.values())
    return (
        f"{certificate.format}: {rows} rows, {dropped:,} dropped; "
        f"{trained:,} of {total:,} tokens are learned ({trained / max(1, total):.0%})"
    )


def training_line(done: Training) -> str:
    """Say the training stage in a line."""
    validation = "" if done.validation_loss is None else f", validation {done.validation_loss:.3f}"
    rise = "" if done.forgetting is None else f", general texts {done.forgetting:+.3f} bits per byte"
    beyond = " (no checkpoint stayed within train.max_forgetting)" if done.forgets else ""
    return (
        f"{done.steps} steps, {done.tokens:,} tokens in {done.seconds:.0f} s ({done.tokens_per_second:,.0f} tokens/s); "
        f"loss {done.loss:.3f}{validation}{rise}; step {done.kept_step} kept{beyond}"
    )


def proof_rows(data: Prepared) -> list[ProofRow]:
    """Return the rows that exported files are proven on: test rows, or training rows where nothing is held out."""
    from finetune.exporting import ProofRow

    if data.test and not data.raw_text:
        items = data.test[:PROOF_ROWS]
        return [ProofRow(item.example.id, item.prompt, tuple(item.row.input_ids.tolist())) for item in items]
    rows = [item.row for item in data.test] or data.train
    wholes = [(row.id, tuple(row.input_ids.tolist())) for row in rows[:PROOF_ROWS]]
    return [ProofRow(name, whole[: max(1, len(whole) // 2)], whole) for name, whole in wholes]


def export_section(to: str, recipe: Recipe) -> Export:
    """Return what `--to` means: a kind, or `KIND:FORMAT`; all else is as the recipe says for that kind.

    Raises:
        FinetuneError: an unknown kind or number format.
    """
    kind, _, form = to.partition(":")
    sections: dict[str, Export] = {"merged": MergedExport(), "gguf": GgufExport(), "ollama": OllamaExport()}
    key = "dtype" if kind == "merged" else "quantization"
    formats = get_args(type(sections[kind]).model_fields[key].annotation) if kind in sections else ()
    if kind not in sections or (form and form not in formats):
        near = nearest(form, formats) or ("float16" if kind == "merged" else "q8_0")
        kinds = " or ".join(sections) if kind not in sections else f"{kind} or {kind}:{near}"
        raise FinetuneError(f"cannot export to {to!r}", where="--to", fix=kinds)
    asked = [section for section in recipe.export if section.kind == kind]
    section = next((one for one in asked if not form or getattr(one, key) == form), (*asked, sections[kind])[0])
    return section.model_copy(update={key: form} if form else {})


@contextmanager
def progress_on_terminal(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Yield what is told how much of `total` is done and draws a bar on standard error; None where `quiet`."""
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda done: progress.update(bar, completed=done)
