"""What an unknown key may have been meant to be: the names other trainers use, keys in the wrong section, typos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from finetune.errors import nearest
from finetune.recipe.schema import Recipe, Section
from finetune.recipe.words import kinds, or_list, sections

_BATCH = "one number for all of them, rows an optimizer step learns from; the micro-batch is found by itself"
_SHARE = "as a share of the steps"
_PRECISION = "bfloat16 or float16"

# Names of axolotl, LLaMA-Factory, TRL, Unsloth and Soup -> (dotted key here, what else to know).
ALIASES: dict[str, tuple[str, str]] = {
    # model
    "base": ("model.base", ""),
    "base_model": ("model.base", ""),
    "model_name": ("model.base", ""),
    "model_name_or_path": ("model.base", ""),
    "model_id": ("model.base", ""),
    "pretrained_model_name_or_path": ("model.base", ""),
    "model_revision": ("model.revision", ""),
    "revision_of_model": ("model.revision", ""),
    "torch_dtype": ("model.dtype", ""),
    "precision": ("model.dtype", ""),
    "infer_dtype": ("model.dtype", ""),
    "bf16": ("model.dtype", "bfloat16"),
    "fp16": ("model.dtype", "float16"),
    "bfloat16": ("model.dtype", "bfloat16"),
    "float16": ("model.dtype", "float16"),
    "fp32": ("model.dtype", "float32"),
    "mixed_precision": ("model.dtype", _PRECISION),
    "chat_template_path": ("model.chat_template", ""),
    "chat_template_jinja": ("model.chat_template", "the path of a file"),
    "attn_implementation": ("model.attention", ""),
    "flash_attn": ("model.attention", ""),
    "flash_attention": ("model.attention", "flash_attention_2"),
    "sdp_attention": ("model.attention", "sdpa"),
    "sdpa_attention": ("model.attention", "sdpa"),
    # data
    "dataset": ("data.train", ""),
    "datasets": ("data.train", ""),
    "dataset_name": ("data.train", ""),
    "dataset_path": ("data.train", ""),
    "train_file": ("data.train", ""),
    "train_data": ("data.train", ""),
    "train_dataset": ("data.train", ""),
    "data_path": ("data.train", ""),
    "data_files": ("data.train", ""),
    "eval_dataset": ("data.validation", ""),
    "validation_file": ("data.validation", ""),
    "valid_file": ("data.validation", ""),
    "eval_data": ("data.validation", ""),
    "val_data": ("data.validation", ""),
    "test_datasets": ("data.test", ""),
    "test_file": ("data.test", ""),
    "test_dataset": ("data.test", ""),
    "test_data": ("data.test", ""),
    "dataset_format": ("data.format", ""),
    "field_messages": ("data.columns", "e.g. {messages: conversation}"),
    "dataset_text_field": ("data.columns", "e.g. {text: body}"),
    "text_column": ("data.columns", "e.g. {text: body}"),
    "label_column": ("data.columns", "e.g. {label: queue}"),
    "default_system": ("data.system", ""),
    "default_system_message": ("data.system", ""),
    "system_prompt": ("data.system", ""),
    "val_set_size": ("data.split.validation", "as a share of the rows"),
    "val_size": ("data.split.validation", "as a share of the rows"),
    "val_split": ("data.split.validation", "as a share of the rows"),
    "validation_split": ("data.split.validation", "as a share of the rows"),
    "test_size": ("data.split.test", "as a share of the rows"),
    "test_split": ("data.split.test", "as a share of the rows"),
    "max_samples": ("data.sample.rows", ""),
    "max_train_samples": ("data.sample.rows", ""),
    "max_seq_length": ("data.max_length", ""),
    "max_seq_len": ("data.max_length", ""),
    "sequence_len": ("data.max_length", ""),
    "sequence_length": ("data.max_length", ""),
    "model_max_length": ("data.max_length", ""),
    "block_size": ("data.max_length", ""),
    "cutoff_len": ("data.max_length", ""),
    "excess_length_strategy": ("data.overlong", ""),
    "truncation": ("data.overlong", ""),
    # objective
    "task": ("objective.kind", "sft or pretrain"),
    "stage": ("objective.kind", "sft or pretrain"),
    # method
    "adapter": ("method.kind", "lora, qlora or full"),
    "finetuning_type": ("method.kind", "lora, qlora or full"),
    "peft_method": ("method.kind", "lora, qlora or full"),
    "peft_type": ("method.kind", "lora, qlora or full"),
    "use_peft": ("method.kind", "lora, qlora or full"),
    "full_finetuning": ("method.kind", "full"),
    "load_in_4bit": ("method.kind", "method: {kind: qlora}"),
    "load_in_8bit": ("method.quantization", "method: {kind: qlora, quantization: int8}"),
    "quantization_bit": ("method.quantization", "method: {kind: qlora}, with nf4 for 4 bit and int8 for 8"),
    "quantization_type": ("method.quantization", ""),
    "bnb_4bit_quant_type": ("method.quantization", ""),
    "bnb_4bit_use_double_quant": ("method.double_quantization", ""),
    "use_bnb_nested_quant": ("method.double_quantization", ""),
    "lora": ("method", "method: {kind: lora}"),
    "peft": ("method", "method: {kind: lora}"),
    "r": ("method.rank", ""),
    "lora_r": ("method.rank", ""),
    "lora_rank": ("method.rank", ""),
    "lora_alpha": ("method.alpha", ""),
    "lora_dropout": ("method.dropout", ""),
    "target_modules": ("method.targets", ""),
    "lora_target": ("method.targets", ""),
    "lora_target_modules": ("method.targets", ""),
    "lora_target_linear": ("method.targets", "all-linear, the default"),
    "lora_modules_to_save": ("method.modules_to_save", ""),
    "additional_target": ("method.modules_to_save", ""),
    "peft_use_rslora": ("method.use_rslora", ""),
    "rslora": ("method.use_rslora", ""),
    "peft_use_dora": ("method.use_dora", ""),
    "dora": ("method.use_dora", ""),
    # train
    "training": ("train", ""),
    "trainer": ("train", ""),
    "num_epochs": ("train.epochs", ""),
    "n_epochs": ("train.epochs", ""),
    "num_train_epochs": ("train.epochs", ""),
    "max_epochs": ("train.epochs", ""),
    "max_steps": ("train.steps", ""),
    "num_steps": ("train.steps", ""),
    "lr": ("train.learning_rate", ""),
    "lr_scheduler": ("train.schedule", ""),
    "lr_scheduler_type": ("train.schedule", ""),
    "scheduler": ("train.schedule", ""),
    "warmup_ratio": ("train.warmup", _SHARE),
    "warmup_steps": ("train.warmup", _SHARE),
    "micro_batch_size": ("train.batch_size", _BATCH),
    "per_device_train_batch_size": ("train.batch_size", _BATCH),
    "per_device_batch_size": ("train.batch_size", _BATCH),
    "train_batch_size": ("train.batch_size", _BATCH),
    "global_batch_size": ("train.batch_size", _BATCH),
    "gradient_accumulation_steps": ("train.batch_size", _BATCH),
    "gradient_accumulation": ("train.batch_size", _BATCH),
    "sample_packing": ("train.packing", ""),
    "max_norm": ("train.max_grad_norm", ""),
    "gradient_clipping": ("train.max_grad_norm", ""),
    "clip_grad_norm": ("train.max_grad_norm", ""),
    "use_gradient_checkpointing": ("train.gradient_checkpointing", ""),
    "activation_checkpointing": ("train.gradient_checkpointing", ""),
    "eval_steps": ("train.eval_every", "in steps"),
    "save_steps": ("train.save_every", "in steps"),
    "early_stopping": ("train.early_stop", ""),
    "early_stopping_patience": ("train.early_stop", ""),
    "patience": ("train.early_stop", ""),
    "load_best_model_at_end": ("train.keep", "best or last"),
    # evaluate, export, track, run
    "eval": ("evaluate", ""),
    "evaluation": ("evaluate", ""),
    "metric": ("evaluate.scorer", ""),
    "compute_metrics": ("evaluate.scorer", ""),
    "max_eval_samples": ("evaluate.max_items", ""),
    "max_completion_length": ("evaluate.max_new_tokens", ""),
    "exports": ("export", ""),
    "merge": ("export", "export: [{kind: merged}]"),
    "merge_lora": ("export", "export: [{kind: merged}]"),
    "logging": ("track", ""),
    "tracking": ("track", ""),
    "report_to": ("track.wandb", "track: {wandb: {}}"),
    "use_wandb": ("track.wandb", "track: {wandb: {}}"),
    "wandb": ("track.wandb", ""),
    "wandb_project": ("track.wandb.project", ""),
    "wandb_entity": ("track.wandb.entity", ""),
    "wandb_mode": ("track.wandb.mode", ""),
    "output": ("run.folder", "the folder that holds the run folders; run.name names this one"),
    "output_dir": ("run.folder", "the folder that holds the run folders; run.name names this one"),
    "out_dir": ("run.folder", "the folder that holds the run folders; run.name names this one"),
    "run_name": ("run.name", ""),
    "wandb_name": ("run.name", ""),
    "wandb_run_name": ("run.name", ""),
    "experiment_name": ("run.name", ""),
    "seed": ("run.seed", ""),
    "random_state": ("run.seed", ""),
    "random_seed": ("run.seed", ""),
    "data_seed": ("run.seed", ""),
    "split_seed": ("data.split.seed", ""),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What to write instead, and the dotted key it leads to (empty when there is none)."""

    fix: str
    target: str = ""


def suggest(key: str, section: str, owner: type[Section], siblings: tuple[type[Section], ...]) -> Suggestion:
    """Say what an unknown key was probably meant to be.

    Args:
        key: the unknown key.
        section: dotted name of the section it stands in, empty for the top of the recipe.
        owner: the section's model.
        siblings: all models the section could have, when its `kind` chooses between several.
    """
    fitting = [kind for kind, one in kinds(siblings).items() if key in one.model_fields]
    if fitting:
        return Suggestion(f"it belongs to kind {or_list(fitting)}", section)
    if key in ALIASES:
        target, note = ALIASES[key]
        return Suggestion(f"it is called {target} here" + (f": {note}" if note else ""), target)
    homes = [path for path in all_keys() if path.rpartition(".")[2] == key]
    if homes:
        return Suggestion(f"it belongs elsewhere: write {or_list(homes)}", homes[0])
    close = nearest(key, owner.model_fields)
    if close:
        return Suggestion(f"did you mean {close!r}?", f"{section}.{close}" if section else close)
    close = nearest(key, [*ALIASES, *(path.rpartition(".")[2] for path in all_keys())])
    if close:
        target = ALIASES[close][0] if close in ALIASES else next(p for p in all_keys() if p.rpartition(".")[2] == close)
        return Suggestion(f"did you mean {target}?", target)
    return Suggestion(f"valid here: {', '.join(owner.model_fields)}")


@cache
def all_keys() -> tuple[str, ...]:
    """Return every dotted key of a recipe once, sections among them, in the order of the schema."""
    return tuple(dict.fromkeys(_keys(Recipe, "")))


def _keys(section: type[Section], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        for inner in sections(field.annotation):
            yield from _keys(inner, f"{prefix}{name}.")
