"""What the parts of a recipe mean for each other: settings that contradict, and settings that would have no effect.

Each rule is one function that yields findings; `findings(recipe)` runs them all. Only what somebody wrote counts: a
default never breaks a rule. A setting without effect is an error, because whoever wrote it expects one.
"""

from __future__ import annotations

from collections.abc import Iterator

from finetune.errors import Problem
from finetune.recipe.contestant_rules import CONTESTANT_RULES
from finetune.recipe.finding import COMMIT, Finding, Rule
from finetune.recipe.finding import is_set as is_set
from finetune.recipe.paths import is_hub_base, missing
from finetune.recipe.schema import (
    DataSection,
    MergedExport,
    PretrainObjective,
    QloraMethod,
    Recipe,
    SourceSection,
)
from finetune.recipe.task_rules import TASK_RULES, data_tasks
from finetune.recipe.tasks import HeldOutTask


def findings(recipe: Recipe) -> list[Finding]:
    """Return every broken rule of a recipe, in the order of its sections."""
    return [finding for rule in RULES for finding in rule(recipe)]


def rule_problems(recipe: Recipe) -> list[Problem]:
    """Return every broken rule as a problem with the place where the setting was written."""
    return [Problem(recipe.where(one.key), one.what, one.fix) for one in findings(recipe)]


def missing_files(recipe: Recipe) -> list[Problem]:
    """Return a problem for every path of the recipe that leads to no file, with the place where it was written.

    Looks at data files and globs, `test_ids`, `chat_template` and a local base; hub and package names are not
    looked up.
    """
    return missing(recipe.model_dump(), recipe.where)


# ---------------------------------------------------------------------------------------------------------- model


def remote_code_is_pinned(recipe: Recipe) -> Iterator[Finding]:
    """Code that comes with a hub model is run only from a commit somebody has looked at."""
    model = recipe.model
    if model.trust_remote_code and is_hub_base(model.base) and not COMMIT.fullmatch(model.revision or ""):
        yield Finding(
            "model.trust_remote_code",
            f"trust_remote_code runs whatever code {model.base!r} holds on the day",
            "set model.revision to the full commit hash (40 characters) whose code you have read",
        )


def revision_needs_hub(recipe: Recipe) -> Iterator[Finding]:
    """Only hub models have revisions."""
    if is_set(recipe, "model.revision") and not is_hub_base(recipe.model.base):
        what = f"model.revision has no effect: {recipe.model.base!r} is not a hub model"
        yield Finding("model.revision", what, "remove model.revision")


def flash_attention_needs_half(recipe: Recipe) -> Iterator[Finding]:
    """FlashAttention computes in 16 bit only."""
    if recipe.model.attention == "flash_attention_2" and recipe.model.dtype == "float32":
        what = "flash_attention_2 cannot compute in float32"
        yield Finding("model.attention", what, "set model.dtype to bfloat16, or model.attention to sdpa")


# ----------------------------------------------------------------------------------------------------------- data


_INSTRUCTED = ("classification", "multi_label", "multiple_choice", "tags")
_RAW = ("text", "completion")


def readings(data: DataSection, sets: tuple[str, ...] = ("train", "validation", "test")) -> Iterator[_Reading]:
    """Yield each place that says how rows read: the whole section, then the sources of mixtures.

    A setting of the whole section holds for the sources that do not say it themselves, so that in a mixture it may be
    meant for one of them: those settings are judged with the sources.
    """
    lists = {name: getattr(data, name) for name in sets}
    sources = [
        (f"data.{name}.{number}", one)
        for name, given in lists.items()
        if isinstance(given, tuple)
        for number, one in enumerate(given)
        if isinstance(one, SourceSection)
    ]
    if not sources:
        yield "data", data
    yield from sources


_Reading = tuple[str, DataSection | SourceSection]


def template_and_format(recipe: Recipe) -> Iterator[Finding]:
    """A template and `format: template` go together."""
    for key, one in readings(recipe.data):
        template = one.template or recipe.data.template
        form = one.format if "format" in one.model_fields_set else recipe.data.format
        if one.template is not None and form != "template":
            what = f"{key}.template has no effect with format: {form}"
            yield Finding(f"{key}.template", what, f"write format: template, or remove {key}.template", ("data",))
        if template is None and form == "template":
            fix = f"write {key}.template with prompt and completion"
            yield Finding(f"{key}.format", "format: template needs " + f"{key}.template", fix, ("data",))


def settings_of_formats(recipe: Recipe) -> Iterator[Finding]:
    """Some settings speak of what only some formats have: a text put before, labels, choices."""
    for key, one in readings(recipe.data):
        form = one.format if "format" in one.model_fields_set else recipe.data.format
        for name, formats in (
            ("instruction", _INSTRUCTED),
            ("answer_is", ("multiple_choice",)),
            ("sample.per_label", ("classification",)),
        ):
            written = name in one.model_fields_set if "." not in name else is_set(recipe, f"data.{name}")
            if form == "auto" or not written or form in formats or (key != "data" and "." in name):
                continue
            what = f"{key}.{name} has no effect with format: {form}"
            yield Finding(f"{key}.{name}", what, f"write format: {formats[0]}, or remove {key}.{name}", ("data",))


def weights_are_for_training(recipe: Recipe) -> Iterator[Finding]:
    """Only rows that are learned are drawn; those of a verdict count once each."""
    for key, one in readings(recipe.data, ("validation", "test")):
        if isinstance(one, SourceSection) and one.weight != 1:
            what = f"{key}.weight has no effect: only training rows are drawn"
            yield Finding(f"{key}.weight", what, "remove it", ("data",))


def split_of_given_files(recipe: Recipe) -> Iterator[Finding]:
    """What has files of its own is not split off."""
    data = recipe.data
    if is_set(recipe, "data.split.validation") and data.split.validation > 0 and data.validation is not None:
        what = "data.split.validation has no effect: data.validation names the rows"
        yield Finding("data.split.validation", what, "remove one of the two")
    taker = "data.test" if data.test is not None else "data.split.test_ids" if data.split.test_ids is not None else ""
    if is_set(recipe, "data.split.test") and data.split.test > 0 and taker:
        what = f"data.split.test has no effect: {taker} names the rows"
        yield Finding("data.split.test", what, "remove one of the two")
    if data.test is not None and data.split.test_ids is not None:
        what = "data.split.test_ids has no effect: data.test names the rows"
        yield Finding("data.split.test_ids", what, "remove one of the two")


def split_leaves_rows(recipe: Recipe) -> Iterator[Finding]:
    """The shares set aside must leave something to learn from."""
    data, split = recipe.data, recipe.data.split
    validation = split.validation if data.validation is None else 0.0
    test = split.test if data.test is None and split.test_ids is None else 0.0
    if validation + test >= 1:
        key = "data.split.test" if is_set(recipe, "data.split.test") else "data.split.validation"
        what = f"split sets aside {validation:g} for validation and {test:g} for test, which leaves no rows to train on"
        yield Finding(key, what, "make them smaller: together less than 1")


def sample_seed_needs_sample(recipe: Recipe) -> Iterator[Finding]:
    """Without a draw there is nothing to seed."""
    sample = recipe.data.sample
    shares = any(isinstance(one, SourceSection) and one.weight % 1 for _, one in readings(recipe.data, ("train",)))
    if is_set(recipe, "data.sample.seed") and sample.rows is None and sample.per_label is None and not shares:
        what = "data.sample.seed has no effect: all rows are used"
        yield Finding("data.sample.seed", what, "set data.sample.rows or data.sample.per_label, or remove it")


def checks_agree(recipe: Recipe) -> Iterator[Finding]:
    """A kind of finding cannot refuse the run and not be looked for."""
    checks = recipe.data.checks
    for kind in sorted(set(checks.error) & set(checks.ignore)):
        what = f"data.checks.error has no effect on {kind!r}: data.checks.ignore names it too"
        yield Finding("data.checks.error", what, "remove it from one of the two")


def lengths_can_refuse(recipe: Recipe) -> Iterator[Finding]:
    """Rows that are too long refuse the run by themselves unless they are cut or left out."""
    if "over_long" in (*recipe.data.checks.error, *recipe.data.checks.ignore) and recipe.data.overlong == "error":
        key = "data.checks.error" if "over_long" in recipe.data.checks.error else "data.checks.ignore"
        what = f"{key} has no effect on 'over_long': data.overlong: error refuses such rows"
        yield Finding(key, what, "remove it, or set data.overlong to truncate_prompt or drop", ("data",))


# ------------------------------------------------------------------------------------------------------ objective


def raw_text_is_pretrained(recipe: Recipe) -> Iterator[Finding]:
    """Raw text has no answers to learn."""
    forms = [one.format for _, one in readings(recipe.data, ("train",))]
    if all(form in _RAW for form in forms) and not isinstance(recipe.objective, PretrainObjective):
        what = f"format: {forms[0]} has no answers, which objective {recipe.objective.kind} learns"
        yield Finding("data.format", what, "write objective: {kind: pretrain}", ("objective",))


def pretraining_has_no_chat(recipe: Recipe) -> Iterator[Finding]:
    """Pretraining reads raw text and measures bits per byte; nothing that shapes a conversation applies."""
    if not isinstance(recipe.objective, PretrainObjective):
        return
    for place, one in readings(recipe.data, ("train",)):
        if one.format not in ("auto", *_RAW):
            what = f"objective pretrain learns raw text, not format: {one.format}"
            fix = "write format: text, or objective: {kind: sft}"
            yield Finding(f"{place}.format", what, fix, ("objective",))
    asked = any(not isinstance(task, HeldOutTask) for task in recipe.evaluate.tasks)
    for key in () if asked else ("data.system", "model.chat_template"):
        if is_set(recipe, key):
            what = f"{key} has no effect with objective pretrain: raw text has no turns"
            yield Finding(key, what, f"remove {key}", ("objective",))
    if recipe.evaluate.scorer not in ("auto", "bits_per_byte", "perplexity"):
        what = f"scorer {recipe.evaluate.scorer} needs answers, and objective pretrain has raw text"
        yield Finding("evaluate.scorer", what, "write scorer: bits_per_byte", ("objective",))


# --------------------------------------------------------------------------------------------------------- method


def double_quantization_is_nf4(recipe: Recipe) -> Iterator[Finding]:
    """LLM.int8 has no scales that could be quantised again."""
    method = recipe.method
    if isinstance(method, QloraMethod) and method.quantization == "int8" and is_set(recipe, _DOUBLE):
        yield Finding(_DOUBLE, f"{_DOUBLE} has no effect with quantization: int8", "remove it, or use nf4")


_DOUBLE = "method.double_quantization"


# ---------------------------------------------------------------------------------------------------------- train


def steps_or_epochs(recipe: Recipe) -> Iterator[Finding]:
    """The length is told once."""
    if is_set(recipe, "train.steps") and is_set(recipe, "train.epochs"):
        what = "train.epochs has no effect: train.steps says how long to train"
        yield Finding("train.epochs", what, "remove one of the two")


def looks_need_validation(recipe: Recipe) -> Iterator[Finding]:
    """Without validation rows there is no best and nothing to look at."""
    if recipe.data.validation is not None or recipe.data.split.validation > 0:
        return
    settings = {"train.early_stop": True, "train.eval_every": True, "train.keep": recipe.train.keep == "best"}
    settings["train.max_forgetting"] = True
    for key, applies in settings.items():
        if applies and is_set(recipe, key):
            what = f"{key} has no effect: there are no validation rows"
            fix = "give data.validation or a data.split.validation above 0, or remove it"
            yield Finding(key, what, fix, ("data", "data.split"))


def bounds_choose_the_best(recipe: Recipe) -> Iterator[Finding]:
    """Where the last checkpoint is kept whatever it is, no bound chooses among them."""
    if is_set(recipe, "train.max_forgetting") and recipe.train.keep == "last":
        what = "train.max_forgetting has no effect with keep: last"
        yield Finding("train.max_forgetting", what, "write keep: best, or remove train.max_forgetting")


# ------------------------------------------------------------------------------------------------------- evaluate


def settings_of_scorers(recipe: Recipe) -> Iterator[Finding]:
    """Some settings belong to one scorer."""
    scorer = recipe.evaluate.scorer
    if recipe.evaluate.fields and scorer not in ("auto", "json_fields"):
        what = f"evaluate.fields has no effect with scorer: {scorer}"
        yield Finding("evaluate.fields", what, "write scorer: json_fields, or remove evaluate.fields")
    if (recipe.evaluate.schema_file is not None) != (scorer == "json_schema"):
        what = f"evaluate.schema_file has no effect with scorer: {scorer}"
        if scorer == "json_schema":
            what = "scorer json_schema checks answers against a JSON Schema, and evaluate.schema_file gives none"
        yield Finding("evaluate.schema_file", what, "give both scorer: json_schema and the schema's file, or neither")
    scorers = [scorer, *(task.scorer for _, task in data_tasks(recipe))]
    if recipe.evaluate.allow_code_execution and not any(one == "tests" or ":" in one for one in scorers):
        what = f"evaluate.allow_code_execution has no effect with scorer: {scorer}"
        yield Finding("evaluate.allow_code_execution", what, "write scorer: tests, or remove it")
    measure = scorer if scorer in ("bits_per_byte", "perplexity") else ""
    if isinstance(recipe.objective, PretrainObjective):
        measure = measure or "bits_per_byte"
    if is_set(recipe, "evaluate.max_new_tokens") and measure:
        what = f"evaluate.max_new_tokens has no effect: {measure} writes no answers"
        yield Finding("evaluate.max_new_tokens", what, "remove it", ("objective",))


# --------------------------------------------------------------------------------------------------------- export


def exports_differ(recipe: Recipe) -> Iterator[Finding]:
    """Two entries that make the same file would overwrite each other."""
    seen: dict[tuple[str, str], int] = {}
    for number, section in enumerate(recipe.export):
        form = section.dtype if isinstance(section, MergedExport) else section.quantization
        first = seen.setdefault((section.kind, form), number)
        if first != number:
            what = f"export.{number} makes the same file as export.{first}: {section.kind} in {form}"
            yield Finding(f"export.{number}", what, "remove one of the two")


RULES: tuple[Rule, ...] = (
    remote_code_is_pinned,
    revision_needs_hub,
    flash_attention_needs_half,
    template_and_format,
    settings_of_formats,
    weights_are_for_training,
    split_of_given_files,
    split_leaves_rows,
    sample_seed_needs_sample,
    checks_agree,
    lengths_can_refuse,
    raw_text_is_pretrained,
    pretraining_has_no_chat,
    double_quantization_is_nf4,
    steps_or_epochs,
    looks_need_validation,
    bounds_choose_the_best,
    settings_of_scorers,
    exports_differ,
    *TASK_RULES,
    *CONTESTANT_RULES,
)
