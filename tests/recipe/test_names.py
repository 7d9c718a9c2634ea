from __future__ import annotations

import pytest

from finetune.recipe.names import ALIASES, all_keys
from finetune.recipe.reader import problems
from finetune.recipe.schema import Recipe


def test_every_alias_leads_to_a_key_of_the_schema() -> None:
    assert len(ALIASES) > 100
    assert {alias: target for alias, (target, _) in ALIASES.items() if target not in all_keys()} == {}


def test_no_alias_is_shadowed_by_a_section_of_the_recipe() -> None:
    assert set(ALIASES) & set(Recipe.model_fields) == set()


def test_all_keys_holds_sections_and_leaves_once() -> None:
    keys = all_keys()
    assert len(keys) == len(set(keys))
    assert {"model", "data.split.seed", "method.kind", "method.quantization", "track.wandb.mode"} <= set(keys)


def test_the_recipe_of_another_trainer_is_understood(tmp_path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text("""\
base_model: org/model
datasets: [rows.jsonl]
val_set_size: 0.05
output_dir: ./out
sequence_len: 2048
sample_packing: true
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj]
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 3
lr_scheduler: cosine
warmup_ratio: 0.1
bf16: auto
wandb_project: x
load_in_4bit: true
seed: 42
max_steps: 10
learning_rate: 2e-4
""")
    found = [(int(one.where.rpartition(":")[2]), one.fix) for one in problems(path)]
    batch = (
        "it is called train.batch_size here: one number for all of them, rows an optimizer step learns from; "
        "the micro-batch is found by itself"
    )
    assert found == [
        (1, "it is called model.base here"),
        (2, "it is called data.train here"),
        (3, "it is called data.split.validation here: as a share of the rows"),
        (4, "it is called run.folder here: the folder that holds the run folders; run.name names this one"),
        (5, "it is called data.max_length here"),
        (6, "it is called train.packing here"),
        (7, "it is called method.kind here: lora, qlora or full"),
        (8, "it is called method.rank here"),
        (9, "it is called method.alpha here"),
        (10, "it is called method.dropout here"),
        (11, "it is called method.targets here"),
        (12, batch),
        (13, batch),
        (14, "it is called train.epochs here"),
        (15, "it is called train.schedule here"),
        (16, "it is called train.warmup here: as a share of the steps"),
        (17, "it is called model.dtype here: bfloat16"),
        (18, "it is called track.wandb.project here"),
        (19, "it is called method.kind here: method: {kind: qlora}"),
        (20, "it is called run.seed here"),
        (21, "it is called train.steps here"),
        (22, "it belongs elsewhere: write train.learning_rate"),
    ]


@pytest.mark.parametrize(
    "name",
    ["model_name_or_path", "lora_target", "finetuning_type", "cutoff_len", "per_device_train_batch_size", "report_to",
     "num_train_epochs", "max_seq_length", "lr_scheduler_type", "random_state", "target_modules", "train_file"],
)  # fmt: skip
def test_names_of_other_trainers_are_known(name: str) -> None:
    assert name in ALIASES
