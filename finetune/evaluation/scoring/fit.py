"""Can a scorer judge these items? `require_fit` refuses those that it would give a 0 that no answer deserves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.data.item_choices import GOLD
from finetune.errors import FinetuneError, nearest, some
from finetune.evaluation.scoring.baseline import clip
from finetune.evaluation.scoring.benchmark_scorers import letter_of
from finetune.evaluation.scoring.reading import last_number, parse_object
from finetune.evaluation.scoring.scorer import Scorer
from finetune.evaluation.scoring.words import collapse
from finetune.recipe.schema import EvaluateSection

_KEY = "evaluate.scorer"
_AUTO = "set evaluate.scorer to auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The items of a task as a scorer sees them; the columns are equally long, or empty where nothing is known.

    Attributes:
        references: what ought to be answered.
        labels: known classes of classification data, else None.
        raw_text: the items are text, without question and answer.
        metadata: what they hold beside their texts.
        alternatives: further right answers of each.
        ids: of the items, for messages.
    """

    references: Sequence[str]
    labels: Sequence[str] | None
    raw_text: bool
    metadata: Sequence[Mapping[str, Any]] = ()
    alternatives: Sequence[Sequence[str]] = ()
    ids: Sequence[str] = ()

    def right_answers(self) -> list[tuple[int, str]]:
        """Return every right answer with the place of its item."""
        found = list(enumerate(self.references))
        return found + [(place, other) for place, others in enumerate(self.alternatives) for other in others]


def require_fit(name: str, section: EvaluateSection, why: str, items: Judged) -> None:
    """Refuse a scorer that cannot judge these items, and settings that it does not look at.

    Args:
        name: of the scorer.
        section: the recipe's `evaluate`.
        why: the scorer was chosen.
        items: of the task.

    Raises:
        FinetuneError: it is refused.
    """
    _require_settings(name, section, why)
    what = _unfit_kind(name, items)
    if what:
        raise FinetuneError(f"{name} cannot judge these rows: {what}", where=_KEY, fix=_AUTO)
    if name in _NEEDS:
        meets, fault, fix = _NEEDS[name]
        unfit = [(place, text) for place, text in items.right_answers() if not meets(text)]
        if unfit:
            told = _unfit_references(unfit, fault, items.ids)
            raise FinetuneError(f"{name} cannot judge these rows: {told}", where=_KEY, fix=fix)
    _require_fields(section.fields, items.references)


def require_valid(scorer: Scorer, items: Judged) -> None:
    """Refuse a schema that the right answers themselves do not meet.

    Raises:
        FinetuneError: it is refused.
    """
    found = [(place, text, scorer.judge(text, text)) for place, text in enumerate(items.references)]
    wrong = [(place, text, score) for place, text, score in found if not score.value]
    if wrong:
        score = wrong[0][2]
        why = "; ".join(score.detail["faults"]) or "it is no JSON"
        told = _unfit_references([(place, text) for place, text, _ in wrong], f"is not valid: {why}", items.ids)
        fix = "mend the schema or the rows: a right answer has to be valid"
        raise FinetuneError(f"{scorer.name} cannot judge these rows: {told}", where="evaluate.schema_file", fix=fix)


def _unfit_references(unfit: Sequence[tuple[int, str]], fault: str, ids: Sequence[str]) -> str:
    """Say which references are unfit: the first one in full, the others by their items."""
    place, text = unfit[0]
    if not ids:
        return f"the reference {clip(text)!r} {fault}"
    others = list(dict.fromkeys(repr(ids[other]) for other, _ in unfit if other != place))
    more = f"; {len(others):,} more like it: {some(others)}" if others else ""
    return f"the reference {clip(text)!r} of item {ids[place]!r} {fault}{more}"


def _unfit_kind(name: str, items: Judged) -> str:
    """Say why a scorer does not go with this kind of rows; empty where it does."""
    if items.raw_text and name not in MEASURES:
        return "raw text has no answers"
    if name in ("label", "balanced", "macro_f1") and not items.labels:
        return "they are no classification data with known labels"
    if name in BY_CHOICE and not (items.metadata and all(GOLD in item for item in items.metadata)):
        return "they have no choices whose likelihoods could be compared"
    return ""


MEASURES = ("bits_per_byte", "perplexity")
BY_CHOICE = ("likelihood", "likelihood_norm")


def _require_settings(name: str, section: EvaluateSection, why: str) -> None:
    if section.fields and name != "json_fields":
        raise FinetuneError(
            f"the fields {list(section.fields)!r} are only compared by json_fields, but the scorer is {name!r} ({why})",
            where="evaluate.fields",
            fix="remove them, or set evaluate.scorer to json_fields",
        )
    if name == "json_schema" and section.schema_file is None:
        raise FinetuneError(
            "json_schema checks answers against a JSON Schema, and none is given",
            where="evaluate.schema_file",
            fix="give the schema's file",
        )
    if section.schema_file is not None and name != "json_schema":
        raise FinetuneError(
            f"the schema {section.schema_file!r} is only looked at by json_schema, but the scorer is {name!r} ({why})",
            where="evaluate.schema_file",
            fix="remove it, or set evaluate.scorer to json_schema",
        )


def _require_fields(fields: Sequence[str], references: Sequence[str]) -> None:
    known = {key for text in references for key in parse_object(text) or ()} if fields else set()
    missing = [name for name in fields if name not in known]
    if missing:
        near = nearest(missing[0], known)
        fix = f"did you mean {near!r}?" if near else f"they have: {', '.join(sorted(known))}"
        raise FinetuneError(f"no reference has the field {missing[0]!r}", where="evaluate.fields", fix=fix)


_NEEDS: dict[str, tuple[Callable[[str], object], str, str]] = {
    "number": (lambda text: last_number(text) is not None, "has no number", _AUTO),
    "choice": (letter_of, "names no letter", _AUTO),
    "contains": (collapse, "is empty and occurs in every answer", _AUTO),
    "chrf": (collapse, "is empty and has no characters", "remove the empty rows"),
    "json_fields": (parse_object, "is no JSON object with content", _AUTO),
    "bits_per_byte": (bool, "is empty and has no bytes", "remove the empty rows"),
    "perplexity": (bool, "is empty and has no tokens", "remove the empty rows"),
}
