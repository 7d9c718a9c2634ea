"""From a recipe's `data` to rows understood and divided, before any tokenizer has seen them: `read_corpus(recipe)`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from finetune.data.checks import mask_example
from finetune.data.formats.recognise import RAW_FORMATS, Recognition
from finetune.data.mixtures import (
    Key,
    Part,
    all_labelled,
    bad_row_problems,
    is_mixture,
    read_parts,
    require_rows,
    tell_sources_apart,
)
from finetune.data.rows import Example, Rejected
from finetune.data.splits import Division, divide, load_test_ids, sample
from finetune.data.store import Store
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import PretrainObjective, Recipe


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows understood and divided, before any tokenizer has seen them.

    `train` are the rows that are learned, as often as their source's weight says; `parts` are the sources; `masked`
    counts the personal data that was replaced by placeholders, by kind.
    """

    division: Division
    train: Sequence[Example]
    recognition: Recognition
    labels: tuple[str, ...] | None
    parts: tuple[Part, ...]
    dropped: list[Rejected]
    masked: Mapping[str, int]

    @property
    def raw_text(self) -> bool:
        """Whether all rows are texts without question and answer."""
        return all(part.recognition.format in RAW_FORMATS for part in self.parts)


def read_corpus(recipe: Recipe, *, any_objective: bool = False) -> Corpus:
    """Read, recognise, understand and divide the rows; needs no model.

    Args:
        recipe: the recipe.
        any_objective: the rows are looked at only, so it does not matter whether the objective can learn them.

    Raises:
        FinetuneError: unreadable files, unknown format, bad rows (unless `on_bad_row: drop`), an impossible split.
    """
    section = recipe.data
    parts = tell_sources_apart(read_parts(recipe, "train"))
    _check_group(recipe, parts)
    if not any_objective:
        _check_objective(recipe, parts)
    further: dict[Key, list[Part]] = {
        key: read_parts(recipe, key, parts) for key in ("validation", "test") if getattr(section, key) is not None
    }
    _check_header(recipe, [*parts, *chain.from_iterable(further.values())])
    masked: Counter[str] = Counter()
    if section.checks.personal_data == "mask":
        parts = [_masked(part, masked) for part in parts]
        further = {key: [_masked(part, masked) for part in found] for key, found in further.items()}
    everything = [*parts, *chain.from_iterable(further.values())]
    dropped = [bad for part in everything for bad in part.dropped]
    if section.on_bad_row == "error" and dropped:
        fix = "mend them, or set data.on_bad_row: drop to leave them out"
        raise FinetuneError.of(bad_row_problems(dropped, fix=fix))
    given, notes = _official(recipe, parts, further)
    examples, aside = _learnable(recipe, _trainable(parts))
    require_rows(examples, aside)
    labels = all_labelled(examples)
    division = divide(
        examples,
        section.split,
        has_validation="validation" in given,
        has_test="test" in given,
        test_ids=load_test_ids(section.split.test_ids, where=recipe.where("data.split.test_ids"))
        if section.split.test_ids
        else None,
        where=recipe.where("data.split"),
    )
    notes = [*chain.from_iterable(part.recognition.notes for part in everything), *notes, *division.notes]
    notes += _objective_notes(recipe, examples, aside)
    validation, unlearnable = _learnable(recipe, given.get("validation", division.validation))
    test, unasked = _askable(*_learnable(recipe, given.get("test", division.test)))
    division = replace(division, notes=tuple(notes), validation=validation, test=test)
    drawn = sample(division.train, section.sample, where=recipe.where("data.sample"))
    return Corpus(
        division,
        weigh(drawn, {part.name: part.weight for part in parts}, section.sample.seed),
        _together(parts),
        labels,
        tuple(everything),
        [*dropped, *aside, *unlearnable, *unasked],
        dict(masked),
    )


def _masked(part: Part, counts: Counter[str]) -> Part:
    """Put placeholders in the place of personal data, and count it by kind."""

    def put(example: Example) -> Example:
        masked, found = mask_example(example)
        counts.update(found)
        return masked

    return replace(part, examples={split: list(map(put, examples)) for split, examples in part.examples.items()})


def weigh(examples: Sequence[Example], weights: dict[str, float], seed: int) -> Sequence[Example]:
    """Take the training rows of each source as often as its weight says.

    A whole number takes every row that often. The rest is a share of the rows, drawn by a hash of content and seed, so
    that a larger share contains the smaller one; at least one row of a source is drawn.

    Args:
        examples: training rows.
        weights: source -> weight; 1 where a source is not named.
        seed: seed of the draw.
    """
    if all(weights.get(name, 1.0) == 1.0 for name in weights):
        return examples
    by_source: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        by_source.setdefault(example.source, []).append(place)
    taken: list[int] = []
    for name, places in by_source.items():
        whole, share = divmod(weights.get(name, 1.0), 1.0)
        count = round(share * len(places))
        count = max(count, 1) if not whole else count
        drawn = sorted(places, key=lambda place: _draw(examples[place], seed))[:count] if count else []
        taken += [*places * int(whole), *drawn]
    return Store(examples[place] for place in sorted(taken))


def _draw(example: Example, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{example.everything_said()}\n{example.id}".encode(errors="surrogatepass")).digest()


# ------------------------------------------------------------------------------------------------------ which rows


def _trainable(parts: Sequence[Part]) -> Sequence[Example]:
    """Return the rows to learn from and to divide: all that no official split holds back.

    A source that has nothing but official test or validation rows is divided like one without splits.
    """
    found = [examples for part in parts for split, examples in part.examples.items() if split in _open(part)]
    return found[0] if len(found) == 1 else Store(chain.from_iterable(found))


def _open(part: Part) -> set[str]:
    """The splits of a source that are not held back."""
    return {"", "train"} if {"", "train"} & part.examples.keys() else set(part.examples)


def _official(
    recipe: Recipe, parts: Sequence[Part], further: dict[Key, list[Part]]
) -> tuple[dict[Key, Sequence[Example]], list[Problem]]:
    """Return the rows that are held back, from files of their own or from official splits, and what to say of it."""
    given: dict[Key, Sequence[Example]] = {
        key: Store(chain.from_iterable(_asked_of(part, key) for part in found)) for key, found in further.items()
    }
    notes = []
    for part in parts:
        for split, examples in part.examples.items():
            count = f"{len(examples):,} rows of the official {split} split of {part.name}"
            if split == "" or split == "train":
                continue
            if split in _open(part):
                what, fix = f"there are only {count}: they are divided as data.split says", "give the other files too"
                notes.append(Problem(part.where, what, fix, "warning"))
            elif split in further:
                what = f"{count} are not used: data.{split} names other rows"
                notes.append(Problem(recipe.where(f"data.{split}"), what, severity="note"))
            else:
                given[split] = examples if split not in given else Store(chain(given[split], examples))
                what = f"{count} are the {split} rows"
                notes.append(Problem(part.where, what, severity="note"))
    return given, notes


def _asked_of(part: Part, key: Key) -> Iterable[Example]:
    """The rows of a further source: its official split of that name where it has one, otherwise all."""
    return part.examples[key] if key in part.examples else chain.from_iterable(part.examples.values())


def _learnable(recipe: Recipe, examples: Sequence[Example]) -> tuple[Sequence[Example], list[Rejected]]:
    """Set answers aside that were judged bad: supervised learning would imitate them."""
    bad = [example.origin for example in examples if example.desirable is False]
    if not bad:
        return examples, []
    reason, detail = "marked as a bad answer", f"objective {recipe.objective.kind} learns good answers only"
    return Store(example for example in examples if example.desirable is not False), [
        Rejected(origin, reason, detail) for origin in bad
    ]


def _askable(examples: Sequence[Example], aside: list[Rejected]) -> tuple[Sequence[Example], list[Rejected]]:
    """Set raw texts aside that stand among test rows with questions: there is nothing to ask about them."""
    raw = [example.origin for example in examples if example.text is not None]
    if not raw or len(raw) == len(examples):
        return examples, aside
    reason, detail = "raw text among test questions", "it is held out with the test rows that it is likened to"
    kept = Store(example for example in examples if example.text is None)
    return kept, [*aside, *(Rejected(origin, reason, detail) for origin in raw)]


# ---------------------------------------------------------------------------------------------------- what is said


def _together(parts: Sequence[Part]) -> Recognition:
    """Say how the corpus reads: as its one source does, or as a mixture."""
    if len(parts) == 1:
        return parts[0].recognition
    said = "; ".join(f"{part.name} is {part.recognition.format}: {part.recognition.why}" for part in parts)
    return Recognition(format="mixture", columns={}, why=f"{len(parts)} sources: {said}")


def _objective_notes(recipe: Recipe, examples: Iterable[Example], aside: Sequence[Rejected]) -> list[Problem]:
    counts = Counter(
        name
        for example in examples
        for name, found in (("pairs", example.rejected), ("alternatives", example.alternatives))
        if found
    )
    told = []
    kind, where = recipe.objective.kind, recipe.where("data.train")
    if counts["pairs"]:
        told.append(f"of {counts['pairs']:,} preference pairs, objective {kind} learns the chosen answer alone")
    if aside:
        told.append(f"{len(aside):,} rows are marked as bad answers, which objective {kind} does not learn")
    if counts["alternatives"]:
        told.append(f"{counts['alternatives']:,} rows have several right answers; the first one is learned")
    return [Problem(where, what, severity="note") for what in told]


# --------------------------------------------------------------------------------------------------------- refusals


def _check_group(recipe: Recipe, parts: Sequence[Part]) -> None:
    column = recipe.data.split.group_by
    if column is not None and is_mixture(recipe.data) and all(part.section.split.group_by is None for part in parts):
        raise FinetuneError(
            f"split: group_by names column {column!r}, which no row of any source has",
            where=recipe.where("data.split.group_by"),
            fix="name a column of one of the sources",
        )


def _check_header(recipe: Recipe, parts: Sequence[Part]) -> None:
    """Refuse a word on headers where no file can have one."""
    said = [part for part in parts if part.section.header != "auto"]
    if said and not any(part.tables for part in said):
        raise FinetuneError(
            "header has no effect: there is no CSV or TSV whose reading it would change",
            where=recipe.where("data.header"),
            fix="remove it",
        )


def _check_objective(recipe: Recipe, parts: Sequence[Part]) -> None:
    raw = [part for part in parts if part.recognition.format in RAW_FORMATS]
    if len(raw) == len(parts) and not isinstance(recipe.objective, PretrainObjective):
        raise FinetuneError(
            "these rows are raw text without question and answer",
            where=recipe.where("data.train"),
            fix="set objective: {kind: pretrain}, or say under data.columns which columns are prompt and completion",
        )
    if isinstance(recipe.objective, PretrainObjective):
        problems = [
            Problem(
                recipe.where("objective.kind"),
                f"objective pretrain learns raw text, and these rows are {part.recognition.format}"
                + (f": {part.name}" if len(parts) > 1 else ""),
                "set objective: {kind: sft}, or data.format: text with data.columns: {text: COLUMN}",
            )
            for part in parts
            if part not in raw
        ]
        if problems:
            raise FinetuneError.of(problems)
