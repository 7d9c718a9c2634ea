"""What a recipe may say: one pydantic model a section, one description under each field.

Defaults live here and nowhere else; command-line help, `finetune explain`, the JSON Schema and the documentation
are made from these fields. Nothing in this package imports torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from finetune.recipe.exports import Export as Export
from finetune.recipe.exports import GgufExport as GgufExport
from finetune.recipe.exports import MergedExport as MergedExport
from finetune.recipe.exports import OllamaExport as OllamaExport
from finetune.recipe.row_forms import ANSWER_IS, COLUMNS, FORMAT, HEADER, INSTRUCTION, SYSTEM, TEMPLATE
from finetune.recipe.row_forms import AnswerIs as AnswerIs
from finetune.recipe.row_forms import BenchmarkName as BenchmarkName
from finetune.recipe.row_forms import DataFormat as DataFormat
from finetune.recipe.row_forms import Header as Header
from finetune.recipe.row_forms import TemplateSection as TemplateSection
from finetune.recipe.scoring import EvaluateSection as EvaluateSection
from finetune.recipe.scoring import ScorerName as ScorerName
from finetune.recipe.section import Section as Section

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
DType = Literal["auto", "float32", "bfloat16"]


# ---------------------------------------------------------------------------------------------------------- model


class ModelSection(Section):
    """The base model."""

    base: str = Field(
        description="Hub id, local folder, `.gguf` file, or `package:NAME/FILE.gguf` for a file inside an installed "
        "Python package."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model; unset means its main branch.")
    dtype: DType = Field(
        "auto",
        description="Number format of the frozen weights and of all computing. `auto` takes bfloat16 where the machine "
        "computes it natively and float32 elsewhere. Weights that learn are always kept in float32.",
    )
    chat_template: str | None = Field(
        None, description="Path of a Jinja chat template that replaces the tokenizer's own."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto", description="Attention implementation; `auto` takes the fastest one that is exact on this machine."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the model. Needs `revision` to be a full commit hash."
    )


# ----------------------------------------------------------------------------------------------------------- data


class SplitSection(Section):
    """How rows without a split of their own are divided."""

    validation: Fraction = Field(
        0.1,
        description="Share of the training rows set aside to choose the best checkpoint, unless `data.validation` is "
        "given.",
    )
    test: Fraction = Field(
        0.1, description="Share of the rows set aside for the verdict, unless `data.test` or `test_ids` is given."
    )
    group_by: str | None = Field(
        None, description="Column whose equal values stay on one side (customer, document, conversation)."
    )
    test_ids: str | None = Field(
        None,
        description="File naming the rows of an official test split by id: a JSON list, a JSON object whose keys are "
        "the ids, or one id a line. Ids are matched against the row's `id` column or its key in a keyed JSON file.",
    )
    near_duplicates: Literal["together", "ignore"] = Field(
        "together", description="`together` keeps texts that are nearly identical on one side of the split."
    )
    seed: int = Field(0, description="Seed of the division; the same rows and seed give the same split.")


class SampleSection(Section):
    """Train on a part of the rows."""

    rows: int | None = Field(None, gt=0, description="At most this many training rows, drawn at random.")
    per_label: int | None = Field(None, gt=0, description="At most this many training rows of each label.")
    seed: int = Field(0, description="Seed of the draw.")


FindingKind = Literal[
    "leaks", "contained_texts", "duplicates", "near_duplicates", "conflicting_labels", "label_typos", "rare_labels",
    "label_imbalance", "empty_answers", "refusals", "repeated_answers", "languages", "encoding", "homoglyphs",
    "over_long", "chat_markers",
]  # fmt: skip


class ChecksSection(Section):
    """What is looked for in the rows before they are learned, and what a finding means for the run."""

    personal_data: Literal["count", "mask", "error", "ignore"] = Field(
        "count",
        description="E-mail addresses, phone and account numbers and the like: counted by kind, replaced by "
        "placeholders such as `[EMAIL_1]` before rows are divided, refused, or not looked for. Names have no shape and "
        "are never found.",
    )
    error: tuple[FindingKind, ...] = Field((), description="Kinds of findings that refuse the run.")
    ignore: tuple[FindingKind, ...] = Field((), description="Kinds of findings that are not looked for.")


class SourceSection(Section):
    """One part of a mixture, in a list under `data.train`. What it does not say is taken from `data`."""

    path: str | tuple[str, ...] = Field(description="File, folder, glob, list of either, or hub dataset id.")
    weight: float = Field(
        1.0,
        gt=0,
        description="How often its training rows enter: 0.5 takes half of them, drawn at random, and 2 each twice.",
    )
    format: DataFormat = Field("auto", description=FORMAT)
    columns: dict[str, str] = Field(default_factory=dict, description=COLUMNS)
    template: TemplateSection | None = Field(None, description=TEMPLATE)
    system: str | None = Field(None, description=SYSTEM)
    instruction: str | None = Field(None, description=INSTRUCTION)
    answer_is: AnswerIs = Field("auto", description=ANSWER_IS)
    header: Header = Field("auto", description=HEADER)


class DataSection(Section):
    """The corpus: where it is, how it reads, how it is split and what is cut."""

    train: str | tuple[str | SourceSection, ...] = Field(
        description="File, folder, glob, list of these, or hub dataset id (`hub:OWNER/NAME`). JSON, JSON Lines, CSV, "
        "TSV, Parquet, Arrow, XML and documents, plain, in a `.zip`, or packed as `.gz`, `.bz2`, `.xz` or `.zst`. "
        "`FILE.json::/data/rows` says where in a file the rows are, `ARCHIVE.zip!MEMBER` names one file of an archive, "
        "and `#500` at the end draws so many rows. A list with mappings among its items is a mixture: each item is a "
        "source that is recognised on its own."
    )
    validation: str | tuple[str | SourceSection, ...] | None = Field(
        None, description="Rows for choosing the best checkpoint."
    )
    test: str | tuple[str | SourceSection, ...] | None = Field(
        None, description="Rows for the verdict; never trained on."
    )
    format: DataFormat = Field("auto", description=FORMAT)
    columns: dict[str, str] = Field(default_factory=dict, description=COLUMNS)
    template: TemplateSection | None = Field(None, description=TEMPLATE)
    system: str | None = Field(None, description=SYSTEM)
    instruction: str | None = Field(None, description=INSTRUCTION)
    answer_is: AnswerIs = Field("auto", description=ANSWER_IS)
    header: Header = Field("auto", description=HEADER)
    split: SplitSection = Field(default_factory=SplitSection, description="Division into train, validation and test.")
    sample: SampleSection = Field(default_factory=SampleSection, description="Train on a part of the rows.")
    max_length: int = Field(1024, ge=8, description="Longest row in tokens, prompt and answer together.")
    overlong: Literal["error", "truncate_prompt", "drop"] = Field(
        "error",
        description="What to do with longer rows: refuse the run, cut the longest user turn from its start (the "
        "answer is never cut), or drop the row. Either is counted in the certificate. Raw text is cut into pieces "
        "instead, and nothing of it is lost.",
    )
    checks: ChecksSection = Field(
        default_factory=ChecksSection, description="What is looked for in the rows, and what a finding means."
    )
    on_bad_row: Literal["error", "drop"] = Field(
        "error", description="What to do with rows that cannot be read as the format says; drops are counted by reason."
    )


# ------------------------------------------------------------------------------------------------ objective, method


class SftObjective(Section):
    """Learn the assistant's turns of conversations; prompts give no gradient."""

    kind: Literal["sft"] = "sft"


class PretrainObjective(Section):
    """Continue pretraining: learn every token of raw text (`format: text`)."""

    kind: Literal["pretrain"] = "pretrain"


Objective = Annotated[SftObjective | PretrainObjective, Field(discriminator="kind")]


class LowRank(Section):
    """What LoRA and QLoRA have in common."""

    rank: int = Field(16, ge=1, description="Rank r of the update B·A (Hu et al. 2021, arXiv:2106.09685).")
    alpha: float = Field(
        32, gt=0, description="The update is scaled by alpha / rank (with `use_rslora` by alpha / sqrt(rank))."
    )
    dropout: Fraction = Field(0.0, description="Dropout on the adapter's input.")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="`all-linear` (every linear layer but the head) or names of modules."
    )
    modules_to_save: tuple[str, ...] = Field(
        (), description="Modules trained whole and saved with the adapter, e.g. `[embed_tokens, lm_head]`."
    )
    use_rslora: bool = Field(False, description="Rank-stabilised scaling (arXiv:2312.03732); use with high ranks.")
    use_dora: bool = Field(False, description="Learn magnitude and direction apart (DoRA, arXiv:2402.09353); slower.")


class LoraMethod(LowRank):
    """Low-rank adapters on a frozen base. Use this first: small files, little memory, hard to break the base."""

    kind: Literal["lora"] = "lora"


class QloraMethod(LowRank):
    """LoRA over a quantised frozen base (arXiv:2305.14314). Use when the base does not fit in memory otherwise."""

    kind: Literal["qlora"] = "qlora"
    quantization: Literal["nf4", "int8"] = Field("nf4", description="4-bit NormalFloat or 8-bit (LLM.int8) base.")
    double_quantization: bool = Field(True, description="Quantise the nf4 scales as well (saves 0.4 bit a weight).")


class FullMethod(Section):
    """Every weight learns. Use with much data and memory for four copies of the model in float32."""

    kind: Literal["full"] = "full"


Method = Annotated[LoraMethod | QloraMethod | FullMethod, Field(discriminator="kind")]


# ---------------------------------------------------------------------------------------------------------- train


class TrainSection(Section):
    """How long, how fast and in what portions to learn."""

    epochs: float = Field(1.0, gt=0, description="Passes over the training rows; parts of one are allowed.")
    steps: int | None = Field(None, gt=0, description="Stop after this many optimizer steps instead of `epochs`.")
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate; unset means 2e-4 for lora and qlora, 2e-5 for full."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Course of the rate after warm-up.")
    warmup: Fraction = Field(0.03, description="Share of the steps over which the rate rises from zero.")
    batch_size: int = Field(
        16,
        ge=1,
        description="Effective batch: rows an optimizer step learns from, whatever the memory, packing or number of "
        "devices.",
    )
    micro_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens computed at once; unset takes what the machine holds. Changes speed and memory, never "
        "what is learned.",
    )
    packing: bool = Field(
        True,
        description="Lay the rows of a batch end to end instead of padding them; rows do not see each other.",
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay (arXiv:1711.05101).")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients with a larger norm are scaled down to it.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third slower."
    )
    eval_every: int | None = Field(
        None, gt=0, description="Steps between looks at the validation rows; unset means five looks a run."
    )
    save_every: int | None = Field(
        None, gt=0, description="Steps between checkpoints; unset means at each look at the validation rows."
    )
    early_stop: int | None = Field(
        None, gt=0, description="Stop after this many looks at the validation rows without a new best."
    )
    keep: Literal["best", "last"] = Field(
        "best", description="Which checkpoint becomes the result: lowest validation loss, or the last one."
    )
    max_forgetting: float | None = Field(
        None,
        gt=0,
        description="Keep the checkpoint of lowest validation loss among those with which general texts "
        "(`evaluate.forgetting.texts`) take at most this many bits per byte more than with the base, measured at each "
        "look at the validation rows; where there is none, the one with which they take the least. Unset means that "
        "the texts are not looked at.",
    )


# ----------------------------------------------------------------------------------------------------- track, run


class WandbTracker(Section):
    """Weights & Biases; offline where there is no key."""

    project: str = Field("finetune", description="Project the run appears under.")
    entity: str | None = Field(None, description="Team or user; unset means the key's own.")
    mode: Literal["auto", "online", "offline"] = Field("auto", description="`auto`: online with a key, else offline.")


class TrackSection(Section):
    """Trackers beside `metrics.jsonl`, which is always written."""

    wandb: WandbTracker | None = Field(None, description="Log to Weights & Biases.")


class RunSection(Section):
    """Where the run lives and what makes it repeatable."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the run folder; unset means the recipe file's name.",
    )
    folder: str = Field("runs", description="Folder that holds the run folders.")
    seed: int = Field(0, ge=0, description="Seed of weight initialisation, row order and dropout.")


class Recipe(Section):
    """A whole recipe."""

    model: ModelSection = Field(description="The base model.")
    data: DataSection = Field(description="The corpus.")
    objective: Objective = Field(default_factory=SftObjective, description="What is learned.")
    method: Method = Field(default_factory=LoraMethod, description="Which weights learn.")
    train: TrainSection = Field(default_factory=TrainSection, description="How long, how fast, in what portions.")
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection, description="Tuned against base.")
    export: tuple[Export, ...] = Field((MergedExport(),), description="Files to ship, each one verified.")
    track: TrackSection = Field(default_factory=TrackSection, description="Experiment trackers.")
    run: RunSection = Field(default_factory=RunSection, description="Name, folder and seed of the run.")
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def where(self, dotted: str) -> str:
        """Return where a setting was written: `recipe.yaml:12`, `--set train.epochs`, or `default`.

        For a setting that was not written this is the place of the nearest section above it that was.
        """
        while dotted:
            if dotted in self._origins:
                return self._origins[dotted]
            dotted = dotted.rpartition(".")[0]
        return "default"

    def __eq__(self, other: object) -> bool:
        """Two recipes are equal when they say the same, wherever it was written."""
        return self.__dict__ == other.__dict__ if isinstance(other, Recipe) else NotImplemented
