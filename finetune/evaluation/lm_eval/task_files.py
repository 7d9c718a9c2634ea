"""A task of lm-eval in a user's YAML file, read as data: `read_task_file(path)`. Whatever would run code is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.data.reading.sources import read_rows, read_text
from finetune.data.rows import Row
from finetune.errors import FinetuneError, Problem, nearest, some
from finetune.recipe.tree import Path as Key
from finetune.recipe.tree import Source, Tree, read_yaml

# fmt: off
_KEYS = frozenset({
    "task", "task_alias", "tag", "metadata", "include", "dataset_path", "dataset_name", "dataset_kwargs",
    "training_split", "validation_split", "test_split", "fewshot_split", "fewshot_config", "doc_to_text",
    "doc_to_target", "doc_to_choice", "description", "target_delimiter", "fewshot_delimiter", "gen_prefix",
    "num_fewshot", "metric_list", "output_type", "generation_kwargs", "repeats", "filter_list", "should_decontaminate",
})
_CODE = {
    "custom_dataset": "is a function", "class": "is a Python class", "process_docs": "is a function",
    "process_results": "is a function", "use_prompt": "fetches templates that lm-eval runs as code",
    "unsafe_code": "runs what models write", "doc_to_image": "asks with images", "doc_to_audio": "asks with sounds",
}
# Figures of one item each; those of the whole set cannot be paired item by item
METRICS = {
    "multiple_choice": ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"),
    "loglikelihood": ("acc",),
    "loglikelihood_rolling": ("bits_per_byte",),
    "generate_until": ("exact_match",),
}
_METRIC_KEYS = frozenset({
    "metric", "aggregation", "higher_is_better", "ignore_case", "ignore_punctuation", "ignore_numbers",
    "regexes_to_ignore",
})
_SHOT_KEYS = frozenset({"sampler", "split", "fewshot_delimiter", "target_delimiter"})
_GENERATION_KEYS = frozenset({"until", "max_gen_toks", "do_sample", "temperature"})
_FILTERS = frozenset({
    "take_first", "regex", "regex_pos", "multi_choice_regex", "remove_whitespace", "lowercase", "uppercase", "map",
})
# fmt: on
_LOCAL = ("json", "csv", "parquet", "arrow")
_NO_CODE = "write it as a template over the columns, or the whole task as `kind: data`"


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A task file that holds nothing but data.

    Attributes:
        tree: its values with the lines they stand on, included files under them.
        splits: the rows of each split that the task uses, as read.
        files: sha256 of each file that was read.
    """

    tree: Tree
    splits: dict[str, list[Row]]
    files: dict[str, str] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        return self.tree.values

    @property
    def asked_split(self) -> str:
        """The split whose rows are asked."""
        return str(self.values.get("test_split") or self.values["validation_split"])

    @property
    def shots_split(self) -> str | None:
        """The split that examples are taken from, where the file says one."""
        named = (self.values.get("fewshot_config") or {}).get("split") or self.values.get("fewshot_split")
        return None if named is None else str(named)

    def where(self, *key: str | int) -> str:
        """Return the file and line of a setting."""
        return str(self.tree.source(key))

    def columns(self, split: str) -> set[str]:
        """Return the names of all columns that rows of a split have."""
        return {name for row in self.splits[split] for name in row.fields}


def read_task_file(path: str) -> TaskFile:
    """Read a task file, what it includes, and the rows of the splits that it uses.

    Raises:
        FinetuneError: with everything that is wrong: what is no YAML, would run code, is unknown, has no rows.
    """
    tree = _tree(Path(path), ())
    problems = [*tree.problems, *_wrong_keys(tree), *_wrong_values(tree)]
    if problems:
        raise FinetuneError.of(problems)
    read = TaskFile(tree, {})
    for split in dict.fromkeys([read.asked_split, *([read.shots_split] if read.shots_split else [])]):
        try:
            read.splits[split] = list(_rows(read, split, Path(path).parent))
        except FinetuneError as error:
            problems.extend(error.problems)
    if problems:
        raise FinetuneError.of(list(dict.fromkeys(problems)))
    return read


def _tree(path: Path, seen: tuple[Path, ...]) -> Tree:
    """Read a file and lay it over those that it includes."""
    path = path.resolve()
    if path in seen:
        raise FinetuneError(f"{seen[-1].name!r} and this file include each other", where=str(path), fix="take one out")
    tree = read_yaml(read_text(str(path)), Source(str(path), 1, str(path.parent)))
    tree.problems = [_without_code(problem) for problem in tree.problems]
    included = tree.values.pop("include", None)
    for name in [included] if isinstance(included, str) else included or []:
        below = _tree(path.parent / str(name), (*seen, path))
        tree.values = {**below.values, **tree.values}
        tree.sources = {**below.sources, **tree.sources}
        tree.problems = [*below.problems, *tree.problems]
    return tree


def _without_code(problem: Problem) -> Problem:
    """Say of a tag why it is refused here."""
    if not problem.what.startswith("the tag "):
        return problem
    tag = problem.what.removeprefix("the tag ").removesuffix(" has no meaning in a recipe")
    return Problem(problem.where, f"{tag} would run code, and a task file is read as data", _NO_CODE)


def _wrong_keys(tree: Tree) -> Iterator[Problem]:
    for key in tree.values:
        where = str(tree.source((key,)))
        if key in _CODE:
            yield Problem(where, f"{key} {_CODE[key]}, and a task file is read as data", _NO_CODE)
        elif key not in _KEYS:
            near = nearest(key, _KEYS)
            yield Problem(where, f"lm-eval knows no {key!r}", f"did you mean {near!r}?" if near else "take it out")
    inner = {"fewshot_config": _SHOT_KEYS, "generation_kwargs": _GENERATION_KEYS, "dataset_kwargs": {"data_files"}}
    for key, allowed in inner.items():
        for name in _mapping(tree.values.get(key)):
            if name not in allowed:
                what = f"{key}.{name} is not read in a task file"
                yield Problem(str(tree.source((key, name))), what, f"it may say {some(sorted(allowed), 9)}")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _wrong_values(tree: Tree) -> Iterator[Problem]:
    values = tree.values

    def wrong(key: Key, what: str, fix: str) -> Problem:
        return Problem(str(tree.source(key)), what, fix)

    kind = values.get("output_type", "generate_until")
    yield from _missing(values, str(tree.top))
    if kind not in METRICS:
        yield wrong(("output_type",), f"the output_type {kind!r} is none", f"write {some(METRICS)}")
        return
    if values.get("repeats", 1) != 1:
        yield wrong(("repeats",), "an item is answered once here, greedily", "take repeats out")
    if values.get("should_decontaminate"):
        what = "overlap with the training rows is looked for without that"
        yield wrong(("should_decontaminate",), what, "take it out")
    generation = _mapping(values.get("generation_kwargs"))
    if generation.get("do_sample") or generation.get("temperature"):
        yield wrong(("generation_kwargs",), "answers are greedy here", "take do_sample and temperature out")
    if _mapping(values.get("fewshot_config")).get("sampler", "default") not in ("default", "first_n"):
        yield wrong(("fewshot_config", "sampler"), "no such way of taking examples", "write default or first_n")
    yield from _wrong_metrics(values, kind, wrong)
    yield from _wrong_filters(values, wrong)


def _missing(values: Mapping[str, Any], where: str) -> Iterator[Problem]:
    for key in ("task", "dataset_path", "doc_to_text", "doc_to_target"):
        if values.get(key) is None:
            yield Problem(where, f"the task file says no {key}", f"add `{key}: ...`")
    if not (values.get("test_split") or values.get("validation_split")):
        yield Problem(where, "the task file says no split to ask", "add `test_split: test`")
    if values.get("output_type") == "multiple_choice" and values.get("doc_to_choice") is None:
        yield Problem(where, "the task file says no doc_to_choice", "name the column that holds the choices")


def _wrong_metrics(
    values: Mapping[str, Any], kind: str, wrong: Callable[[Key, str, str], Problem]
) -> Iterator[Problem]:
    metrics = values.get("metric_list") or []
    for number, metric in enumerate(metrics if isinstance(metrics, list) else [metrics]):
        here = ("metric_list", number)
        name = _mapping(metric).get("metric")
        if name not in METRICS[kind]:
            near = nearest(str(name), METRICS[kind])
            what = f"{name!r} is no metric of one item for {kind}"
            yield wrong(here, what, f"did you mean {near!r}?" if near else f"it has {some(METRICS[kind])}")
        for key in _mapping(metric):
            if key not in _METRIC_KEYS:
                yield wrong((*here, key), f"a metric's {key!r} is not read in a task file", "take it out")
        if _mapping(metric).get("aggregation", "mean") not in ("mean", "bits_per_byte"):
            yield wrong((*here, "aggregation"), "figures are averaged over the items here", "write aggregation: mean")


def _wrong_filters(values: Mapping[str, Any], wrong: Callable[[Key, str, str], Problem]) -> Iterator[Problem]:
    for number, way in enumerate(values.get("filter_list") or []):
        for step, one in enumerate(_mapping(way).get("filter") or []):
            name = _mapping(one).get("function")
            if name not in _FILTERS:
                here = ("filter_list", number, "filter", step)
                yield wrong(here, f"the filter {name!r} is not read in a task file", f"write {some(_FILTERS, 9)}")


def _rows(read: TaskFile, split: str, folder: Path) -> Iterator[Row]:
    """Yield the rows of a split; a row that cannot be read is a fault of the file."""
    path, name = str(read.values["dataset_path"]), read.values.get("dataset_name")
    if path in _LOCAL:
        spec: str | list[str] = [str(folder / file) for file in _data_files(read, split)]
    else:
        spec = f"hub:{path}" + (f"@{name}" if name else "") + f":{split}"
    source = read_rows(spec, where=read.where("dataset_path"))
    if source.rejected:
        raise FinetuneError.of([Problem(str(bad.origin), bad.detail, bad.fix) for bad in source.rejected])
    if not source.rows:
        raise FinetuneError(f"the split {split!r} has no rows", where=read.where("dataset_path"))
    read.files.update(source.files)
    yield from source.rows


def _data_files(read: TaskFile, split: str) -> list[str]:
    given = _mapping(read.values.get("dataset_kwargs")).get("data_files")
    # As in Hugging Face's loader: files without a split are those of `train`
    splits = given if isinstance(given, Mapping) else {"train": given}
    found = splits.get(split)
    if not found:
        fix = f"write `dataset_kwargs: {{data_files: {{{split}: FILE}}}}`"
        raise FinetuneError(
            f"there is no data file for the split {split!r}", where=read.where("dataset_kwargs"), fix=fix
        )
    return [str(one) for one in (found if isinstance(found, list) else [found])]
