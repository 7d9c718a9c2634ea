from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from finetune.errors import FinetuneError, Problem
from finetune.recipe import (
    FullMethod,
    LoraMethod,
    MergedExport,
    QloraMethod,
    Recipe,
    load_recipe,
    missing_files,
    problems,
    recipe_from_dict,
)
from finetune.recipe.schema import DataFormat
from finetune.recipe.words import or_list

MINIMAL = "model: {base: org/model}\ndata: {train: rows.jsonl}\n"
KEYS = "model, data, objective, method, train, evaluate, export, track, run"
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file into an empty current folder and return its name."""
    monkeypatch.chdir(tmp_path)

    def put(text: str | bytes, name: str = "recipe.yaml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return put


def told(path: str, *overrides: str) -> list[str]:
    """All problems of loading, each as one text; fails when the recipe loads."""
    with pytest.raises(FinetuneError) as caught:
        load_recipe(path, overrides)
    return [str(problem) for problem in caught.value.problems]


# ---------------------------------------------------------------------------------------------------- what is read


def test_minimal_recipe_has_every_default(write: Write) -> None:
    recipe = load_recipe(write(MINIMAL))
    assert recipe.method == LoraMethod()
    assert recipe.export == (MergedExport(),)
    assert recipe.train.epochs == 1.0
    assert recipe.run.name == "recipe"


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-4", 1e-4), ("2E-5", 2e-5), ("1e3", 1000.0), ("+1.5", 1.5), (".5", 0.5), ("3", 3.0), ("0x10", 16.0)],
)
def test_numbers_of_yaml_1_2(write: Write, text: str, number: float) -> None:
    assert load_recipe(write(MINIMAL + f"train: {{learning_rate: {text}}}")).train.learning_rate == number


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "off", "1:30", "2024-01-01", "1_000", "NaN", "e5", "'null'", "'1e-4'"]
)
def test_words_that_yaml_1_1_would_change_stay_text(write: Write, word: str) -> None:
    recipe = load_recipe(write(f"model: {{base: a/b}}\ndata: {{train: x, system: {word}}}"))
    assert recipe.data.system == word.strip("'")


def test_true_false_and_null(write: Write) -> None:
    recipe = load_recipe(write(MINIMAL + "train: {packing: false, gradient_checkpointing: True, eval_every: ~}"))
    assert (recipe.train.packing, recipe.train.gradient_checkpointing, recipe.train.eval_every) == (False, True, None)


def test_anchors_and_aliases(write: Write) -> None:
    text = MINIMAL + "method: {targets: &names [q_proj, v_proj], modules_to_save: *names}"
    method = load_recipe(write(text)).method
    assert isinstance(method, LoraMethod)
    assert method.targets == method.modules_to_save == ("q_proj", "v_proj")


def test_a_byte_order_mark_is_no_fault(write: Write) -> None:
    assert load_recipe(write(b"\xef\xbb\xbf" + MINIMAL.encode())).model.base == "org/model"


def test_method_without_kind_is_lora(write: Write) -> None:
    assert load_recipe(write(MINIMAL + "method: {rank: 4}")).method == LoraMethod(rank=4)


# ---------------------------------------------------------------------------------------------- faults of the writing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "recipe.yaml:1: the file is empty\n    -> a recipe needs at least model.base and data.train"),
        ("# only\n", "recipe.yaml:1: the file is empty\n    -> a recipe needs at least model.base and data.train"),
        ("- a\n", "recipe.yaml:1: a recipe is a mapping of keys, but this is a list\n    -> write `key: value`"),
        ("word", "recipe.yaml:1: a recipe is a mapping of keys, but this is text\n    -> write `key: value`"),
        ("model:\n\tbase: x\n", "recipe.yaml:2: a tab stands where YAML wants spaces\n    -> indent with spaces"),
        (
            "model: a: b\n",
            "recipe.yaml:1: not valid YAML: mapping values are not allowed here\n"
            "    -> check the indentation, and put quotes around text that contains ': '",
        ),
        ("a: [1\nb: 2\n", "recipe.yaml:2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a: 1\n---\nb: 2\n", "recipe.yaml:2: not valid YAML: but found another document"),
        ("a: *b\n", "recipe.yaml:1: not valid YAML: found undefined alias 'b'"),
        ("a: \x07\n", "recipe.yaml:1: not valid YAML: the character U+0007 cannot stand in YAML"),
        ("\na: \x00\n", "recipe.yaml:2: not valid YAML: the character U+0000 cannot stand in YAML"),
        ('a: "\\UFFFFFFFF"\n', "recipe.yaml:1: not valid YAML: a number or an escape such as \\U is out of range"),
        (b"a: 1\nb: \xff\n", "recipe.yaml:2: not UTF-8 text\n    -> save the file as UTF-8"),
        ("a: &x [*x]\n", "recipe.yaml:1: an alias contains itself\n    -> write the values out"),
        ("a: " + "[" * 30 + "]" * 30, "recipe.yaml:1: more than 20 levels are too many for a recipe"),
        ("a: [" + "1," * 20_001 + "]", "recipe.yaml:1: more than 10000 values are too many for a recipe"),
    ],
)
def test_unreadable_text(write: Write, text: str | bytes, message: str) -> None:
    (only,) = told(write(text))
    assert only.startswith(message)


def test_aliases_cannot_multiply_beyond_the_limit(write: Write) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (only,) = told(write("\n".join(lines)))
    assert only.endswith("more than 10000 values are too many for a recipe")


def test_long_text_cannot_be_multiplied_by_aliases(write: Write) -> None:
    text = f"a: &a {'x' * 500_000}\nb: [*a, *a, *a, *a]\n"
    (only,) = told(write(text))
    assert only == "recipe.yaml:1: more than 2000000 characters are too many for a recipe"


def test_a_key_given_twice_names_both_lines(write: Write) -> None:
    text = "model:\n  base: a/b\n  base: c/d\ndata: {train: x}\ndata: {train: y}\n"
    assert told(write(text)) == [
        "recipe.yaml:3: the key 'base' stands here and in recipe.yaml:2\n    -> keep one of them",
        "recipe.yaml:5: the key 'data' stands here and in recipe.yaml:4\n    -> keep one of them",
    ]


def test_other_faults_of_the_writing_come_together(write: Write) -> None:
    text = MINIMAL + 'train:\n  <<: {epochs: 2}\n  steps: !!int "5"\n  ? [a]\n  : 3\nrun: {folder: "\\uD800"}\n'
    assert told(write(text)) == [
        "recipe.yaml:4: the merge key '<<' is not read\n    -> use `extends: FILE`, or repeat the keys",
        "recipe.yaml:5: the tag '!!int' has no meaning in a recipe\n    -> remove it",
        "recipe.yaml:6: a key has to be one word\n    -> write `key: value`",
        "recipe.yaml:8: half of a surrogate pair (\\uD800 to \\uDFFF) is no text\n    -> write the character itself",
    ]


def test_numbers_of_absurd_length_are_refused(write: Write) -> None:
    assert told(write(MINIMAL + f"run: {{seed: {'9' * 5000}}}"))[0].startswith(
        "recipe.yaml:3: a number of 5000 characters is too long"
    )


def test_files_that_cannot_be_read(write: Write, tmp_path: Path) -> None:
    here = os.getcwd()
    (tmp_path / "folder").mkdir()
    write("x" * 1_000_001, "big.yaml")
    assert told("nothing.yaml") == [
        f"there is no recipe 'nothing.yaml'\n    -> give a recipe that exists; the current folder is {here}"
    ]
    assert told("folder") == ["'folder' is a folder\n    -> give the recipe file in it"]
    assert told("big.yaml") == ["'big.yaml' is larger than 1 MB\n    -> give the recipe; data belong in data.train"]
    assert told("a\0b") == ["cannot read 'a\\x00b': embedded null byte\n    -> check the path and its rights"]
    assert told("/dev/null") == ["'/dev/null' is no ordinary file\n    -> give a YAML file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(write: Write, tmp_path: Path) -> None:
    write(MINIMAL)
    (tmp_path / "recipe.yaml").chmod(0)
    assert told("recipe.yaml") == ["cannot read 'recipe.yaml': Permission denied\n    -> check the path and its rights"]


# ------------------------------------------------------------------------------------------ faults of the settings


def test_five_mistakes_at_once(write: Write) -> None:
    text = """\
model:
  base: org/model
learning_rate: 1e-4
data:
  train: rows.jsonl
  max_lenght: 512
method:
  kind: lorra
train:
  epochs: three
evaluate:
  confidence: 95
"""
    with pytest.raises(FinetuneError) as caught:
        load_recipe(write(text))
    assert (
        str(caught.value)
        == """\
5 problems:
  1. recipe.yaml:3: unknown key 'learning_rate'
    -> it belongs elsewhere: write train.learning_rate
  2. recipe.yaml:6: unknown key 'max_lenght' in data
    -> did you mean 'max_length'?
  3. recipe.yaml:8: method.kind is 'lorra'; it must be lora, qlora or full
    -> did you mean 'lora'?
  4. recipe.yaml:10: train.epochs is 'three'; it must be a number, greater than 0
  5. recipe.yaml:12: evaluate.confidence is 95; it must be a number, greater than 0.5 and less than 1"""
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train: {packing: yes}", "train.packing is 'yes'; it must be true or false\n    -> write true"),
        ("train: {packing: 'False'}", "train.packing is 'False'; it must be true or false\n    -> write false"),
        ("train: {packing: 1}", "train.packing is 1; it must be true or false"),
        ("train: {steps: 1e3}", "train.steps is 1000.0; it must be a whole number, greater than 0\n    -> write 1000"),
        (
            "train: {steps: 1_000}",
            "train.steps is '1_000'; it must be a whole number, greater than 0\n    -> write 1000",
        ),
        ("train: {steps: '7'}", "train.steps is '7'; it must be a whole number, greater than 0\n    -> write 7"),
        ("train: {steps: true}", "train.steps is true; it must be a whole number, greater than 0"),
        ("train: {epochs: .inf}", "train.epochs is inf; it must be a number, greater than 0"),
        ("train: {epochs: .NaN}", "train.epochs is nan; it must be a number, greater than 0"),
        ("train: {warmup: 1}", "train.warmup is 1; it must be a number, 0 or more and less than 1"),
        (
            "train: {schedule: cosin}",
            "train.schedule is 'cosin'; it must be cosine, linear or constant\n    -> did you mean 'cosine'?",
        ),
        (
            "train:",
            "train is empty; it must be a mapping of keys\n"
            "    -> give a value, or leave the key out to take the default",
        ),
        ("train: fast", "train is 'fast'; it must be a mapping of keys"),
        ("train: {batch_size: [8]}", "train.batch_size is a list; it must be a whole number, 1 or more"),
        ("method: qlora", "method is 'qlora'; it must be a mapping of keys\n    -> write {kind: qlora}"),
        ("method: {kind: 3}", "method.kind is 3; it must be lora, qlora or full"),
        ("method: {kind: [lora]}", "method.kind is a list; it must be lora, qlora or full"),
        (
            "method: {targets: q_proj}",
            "method.targets is 'q_proj'; it must be all-linear or a list of texts\n    -> write [q_proj]",
        ),
        (
            "method: {targets: all-liner}",
            "method.targets is 'all-liner'; it must be all-linear or a list of texts\n"
            "    -> did you mean 'all-linear'?",
        ),
        ("method: {targets: [q_proj, 5]}", "method.targets.1 is 5; it must be text\n    -> put it in quotes: '5'"),
        ("method: {kind: full, rank: 8}", "unknown key 'rank' in method\n    -> it belongs to kind lora or qlora"),
        (
            "method: {double_quantization: true}",
            "unknown key 'double_quantization' in method\n    -> it belongs to kind qlora",
        ),
        (
            "method: {kind: lora, lora: 5}",
            "unknown key 'lora' in method\n    -> it is called method here: method: {kind: lora}",
        ),
        ("export: merged", "export is 'merged'; it must be a list of mappings\n    -> write [{kind: merged}]"),
        ("export: [merged]", "export.0 is 'merged'; it must be a mapping of keys\n    -> write {kind: merged}"),
        (
            "export: {kind: merged}",
            "export is a mapping; it must be a list of mappings\n    -> write a list: one '-' before each mapping",
        ),
        ("export: [{kind: merged, max_kl: 0}]", "export.0.max_kl is 0; it must be a number, greater than 0"),
        ("export: [{kind: merged, max: 0}]", "unknown key 'max' in export.0\n    -> did you mean 'max_kl'?"),
        (
            "track: {wandb: true}",
            "track.wandb is true; it must be a mapping of keys\n    -> write {} to take its defaults",
        ),
        (
            "run: {name: a b}",
            "run.name is 'a b'; it must be text of letters, digits, '.', '_' and '-' "
            "that begins with a letter or digit",
        ),
        ("run: {folder: 2024}", "run.folder is 2024; it must be text\n    -> put it in quotes: '2024'"),
        ("run: {folder: true}", "run.folder is true; it must be text\n    -> put it in quotes: 'true'"),
        ("run: {nmae: x}", "unknown key 'nmae' in run\n    -> did you mean 'name'?"),
        ("zzz: 1", f"unknown key 'zzz'\n    -> valid here: {KEYS}"),
        ("trian: {epochs: 2}", "unknown key 'trian'\n    -> did you mean 'train'?"),
        ("batch_size: 4", "unknown key 'batch_size'\n    -> it belongs elsewhere: write train.batch_size"),
        (
            "evaluate: {max_length: 4}",
            "unknown key 'max_length' in evaluate\n    -> it belongs elsewhere: write data.max_length",
        ),
        ("train: {num_epochs: 4}", "unknown key 'num_epochs' in train\n    -> it is called train.epochs here"),
        ("seed: 4", "unknown key 'seed'\n    -> it is called run.seed here"),
        ("'': 4", f"unknown key ''\n    -> valid here: {KEYS}"),
    ],
)
def test_one_wrong_setting(write: Write, setting: str, message: str) -> None:
    assert told(write(MINIMAL + setting)) == [f"recipe.yaml:3: {message}"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{train: 5}", "data.train is 5; it must be text or a list of texts or mappings\n    -> put it in quotes: '5'"),
        ("{train: [a, 5]}", "data.train.1 is 5; it must be text or a mapping of keys\n    -> put it in quotes: '5'"),
        ("{train: }", "data.train is empty; it must be text or a list of texts or mappings\n    -> give a value"),
        (
            "{train: {path: a}}",
            "data.train is a mapping; it must be text or a list of texts or mappings\n"
            "    -> write a list: one '-' before each mapping",
        ),
        ("{train: [{path: a, weigth: 2}]}", "unknown key 'weigth' in data.train.0\n    -> did you mean 'weight'?"),
        (
            "{train: [b, {weight: 2}]}",
            "missing key data.train.1.path\n    -> File, folder, glob, list of either, or hub dataset id.",
        ),
        (
            "{train: [{path: a, weight: 0}]}",
            "data.train.0.weight is 0; it must be a number, greater than 0",
        ),
        (
            "{train: [{path: a, format: alpacca}]}",
            f"data.train.0.format is 'alpacca'; it must be {or_list(get_args(DataFormat))}\n"
            "    -> did you mean 'alpaca'?",
        ),
        (
            "{train: [{path: 5}]}",
            "data.train.0.path is 5; it must be text or a list of texts\n    -> put it in quotes: '5'",
        ),
        ("{train: a, columns: {text: 5}}", "data.columns.text is 5; it must be text\n    -> put it in quotes: '5'"),
        ("{train: a, columns: [x]}", "data.columns is a list; it must be a mapping of texts to texts"),
        (
            "{train: a, format: template, template: {prompt: x}}",
            "missing key data.template.completion\n"
            "    -> Jinja text of the answer that is learned, e.g. `{{ answer }}`.",
        ),
    ],
)
def test_one_wrong_setting_of_the_data(write: Write, data: str, message: str) -> None:
    assert told(write(f"model: {{base: a/b}}\ndata: {data}")) == [f"recipe.yaml:2: {message}"]


def test_two_faulty_items_of_one_list(write: Write) -> None:
    assert len(told(write("model: {base: a/b}\ndata: {train: [1, 2, a]}"))) == 2


def test_missing_keys_name_the_line_of_their_section(write: Write) -> None:
    found = told(write("run: {seed: 1}\ndata:\n  max_length: 64\n"))
    assert [one.split("\n")[0] for one in found] == [
        "recipe.yaml:1: missing key model.base",
        "recipe.yaml:2: missing key data.train",
    ]


def test_a_key_under_another_name_is_not_missing_as_well(write: Write) -> None:
    assert told(write("base_model: org/model\ndatasets: rows.jsonl\n")) == [
        "recipe.yaml:1: unknown key 'base_model'\n    -> it is called model.base here",
        "recipe.yaml:2: unknown key 'datasets'\n    -> it is called data.train here",
    ]
    assert told(write("modle: {base: a/b}\ndata: {train: x}\n")) == [
        "recipe.yaml:1: unknown key 'modle'\n    -> did you mean 'model'?"
    ]


def test_messages_hold_no_jargon(write: Write) -> None:
    text = "model: 3\ndata: {train: {a: b}}\nobjective: {kind: dpo}\nexport: [3]\nrun: []\nextra: {a: 1}\n"
    found = "\n".join(told(write(text)))
    assert found.count("recipe.yaml:") == 6
    for word in ("pydantic", "http", "input", "Input", "literal", "tuple", "str", "Section", "discriminator", "tag"):
        assert word not in found


def test_long_values_are_cut_in_messages(write: Write) -> None:
    (only,) = told(write(MINIMAL + f"train: {{schedule: {'x' * 500}}}"))
    assert len(only) < 160


# ----------------------------------------------------------------------------------------------------------- extends


def test_extends_merges_mappings_and_replaces_lists(write: Write) -> None:
    write(
        "model: {base: a/b, dtype: float32}\ndata: {train: [x, y]}\ntrain:\n  epochs: 2\n  warmup: 0.1\n", "base.yaml"
    )
    recipe = load_recipe(write("extends: ../base.yaml\ndata: {train: [z]}\ntrain: {epochs: 3}\n", "sub/child.yaml"))
    assert (recipe.model.dtype, recipe.train.epochs, recipe.train.warmup) == ("float32", 3.0, 0.1)
    assert recipe.data.train == (os.path.abspath("sub/z"),)
    assert recipe.where("train.epochs") == "sub/child.yaml:3"
    assert recipe.where("train.warmup") == "base.yaml:5"
    assert recipe.where("model.dtype") == "base.yaml:1"
    assert recipe.where("run.seed") == "default"
    assert recipe.run.name == "child"


@pytest.mark.parametrize(
    ("under", "over", "method"),
    [
        ("{kind: lora, rank: 8}", "{kind: full}", FullMethod()),
        ("{kind: lora, rank: 8}", "{kind: qlora}", QloraMethod()),
        ("{rank: 8}", "{kind: full}", FullMethod()),
        ("{rank: 8}", "{kind: lora, alpha: 4}", LoraMethod(rank=8, alpha=4)),
        ("{kind: qlora, rank: 8}", "{alpha: 4}", QloraMethod(rank=8, alpha=4)),
    ],
)
def test_a_new_kind_replaces_its_section(write: Write, under: str, over: str, method: object) -> None:
    write(MINIMAL + f"method: {under}\n", "base.yaml")
    assert load_recipe(write(f"extends: base.yaml\nmethod: {over}\n")).method == method


def test_an_empty_mapping_empties(write: Write) -> None:
    write("model: {base: a/b}\ndata: {train: x, columns: {text: body}}\n", "base.yaml")
    assert load_recipe(write("extends: base.yaml\ndata: {columns: {}}\n")).data.columns == {}


def test_faults_of_both_files_are_told_with_their_own_lines(write: Write) -> None:
    write("model: {base: a/b}\ndata: {}\ntrain:\n  epochs: x\n", "base.yaml")
    assert [one.split("\n")[0] for one in told(write("extends: base.yaml\ntrain:\n\n  steps: y\n"))] == [
        "base.yaml:2: missing key data.train",
        "base.yaml:4: train.epochs is 'x'; it must be a number, greater than 0",
        "recipe.yaml:4: train.steps is 'y'; it must be a whole number, greater than 0",
    ]


def test_what_extends_cannot_be(write: Write) -> None:
    write(MINIMAL + "extends: third.yaml\n", "second.yaml")
    assert told(write("extends: second.yaml")) == [
        "second.yaml:3: 'second.yaml' is extended and extends another file\n"
        "    -> a recipe extends one file, which stands alone: move the settings there"
    ]
    assert told(write("\nextends: none.yaml"))[0].startswith("recipe.yaml:2: there is no recipe 'none.yaml'")
    assert told(write("extends: [a]")) == ["recipe.yaml:1: extends is a list; it must be the path of one file"]
    assert told(write("extends:")) == ["recipe.yaml:1: extends is empty; it must be the path of one file"]
    assert told(write("extends: recipe.yaml"))[0].startswith("recipe.yaml:1: 'recipe.yaml' is extended and extends")


# --------------------------------------------------------------------------------------------------------- overrides


def test_overrides_are_read_as_yaml(write: Write) -> None:
    recipe = load_recipe(
        write(MINIMAL + "train: {warmup: 0.2}"),
        ["train.epochs=2", "train.learning_rate=1e-5", "method.targets=[q_proj, v_proj]", "data.system='a: #b'",
         "track.wandb={}", "data.columns={text: body}", "train.early_stop=", "run.name=x-y"],
    )  # fmt: skip
    assert (recipe.train.epochs, recipe.train.learning_rate, recipe.train.warmup) == (2.0, 1e-5, 0.2)
    assert recipe.data.system == "a: #b"
    assert recipe.data.columns == {"text": "body"}
    assert recipe.track.wandb is not None
    assert recipe.where("train.epochs") == "--set train.epochs"
    assert recipe.where("train.warmup") == "recipe.yaml:3"
    assert recipe.where("method.targets.1") == "--set method.targets"


def test_an_equals_sign_may_stand_in_the_value(write: Write) -> None:
    assert load_recipe(write(MINIMAL), ["data.system=a=b"]).data.system == "a=b"


def test_the_order_of_overrides_does_not_matter(write: Write) -> None:
    path = write(MINIMAL + "method: {rank: 64}")
    both = ["method.kind=qlora", "method.alpha=8"]
    assert load_recipe(path, both).method == load_recipe(path, both[::-1]).method == QloraMethod(alpha=8)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "--set train.epochs: there is no '='\n    -> write --set section.key=value"),
        ("=3", "--set : '' names no setting\n    -> write --set section.key=value"),
        (
            "train..epochs=3",
            "--set train..epochs: 'train..epochs' names no setting\n    -> write --set section.key=value",
        ),
        ("trian.epochs=3", "--set trian.epochs: unknown key 'trian'\n    -> did you mean 'train'?"),
        ("train.epoch=3", "--set train.epoch: unknown key 'epoch' in train\n    -> did you mean 'epochs'?"),
        ("lora_r=3", "--set lora_r: unknown key 'lora_r'\n    -> it is called method.rank here"),
        ("train.epochs=x", "--set train.epochs: train.epochs is 'x'; it must be a number, greater than 0"),
        ("train.epochs.x=1", "--set train.epochs.x: train.epochs is a mapping; it must be a number, greater than 0"),
        (
            "data.system=a: b",
            "--set data.system: 'a: b' reads as several values\n    -> put the text in quotes of its own",
        ),
        (
            "data.system=a #b",
            "--set data.system: '#b' would be lost as a comment\n    -> put the text in quotes of its own",
        ),
        (
            "data.system=#b",
            "--set data.system: '#b' would be lost as a comment\n    -> put the text in quotes of its own",
        ),
        ("data.system=[a", "--set data.system: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("extends=x.yaml", "--set extends: unknown key 'extends'"),
    ],
)
def test_wrong_overrides(write: Write, override: str, message: str) -> None:
    (only,) = told(write(MINIMAL), override)
    assert only.startswith(message)


def test_an_override_given_twice_is_refused(write: Write) -> None:
    assert told(write(MINIMAL), "train.epochs=1", "train.epochs=2") == [
        "--set train.epochs: train.epochs is set twice\n    -> keep one of them"
    ]


def test_a_missing_key_is_not_blamed_on_an_override(write: Write) -> None:
    (only,) = told(write("model: {base: a/b}\ndata: {max_length: 64}"), "data.format=alpaca")
    assert only.startswith("recipe.yaml:2: missing key data.train")


# ------------------------------------------------------------------------------------------------------------- paths


def test_paths_count_from_the_file_they_stand_in(write: Write, tmp_path: Path) -> None:
    (tmp_path / "sub" / "local").mkdir(parents=True)
    text = """\
model: {base: ./local, chat_template: chat.jinja}
data:
  train: [rows.jsonl, "parts/*.csv", hub:org/rows, /abs/x.csv]
  validation: ../val.jsonl
  split: {test_ids: ids.txt}
"""
    recipe = load_recipe(write(text, "sub/a recipe.yaml"), ["data.test=test.jsonl", "data.split.test_ids=null"])
    sub = tmp_path / "sub"
    assert recipe.model.base == str(sub / "local")
    assert recipe.model.chat_template == str(sub / "chat.jinja")
    assert recipe.data.train == (str(sub / "rows.jsonl"), str(sub / "parts/*.csv"), "hub:org/rows", "/abs/x.csv")
    assert recipe.data.validation == str(tmp_path / "val.jsonl")
    assert recipe.data.test == str(tmp_path / "test.jsonl")
    assert recipe.run.folder == "runs"
    assert recipe.run.name == "a-recipe"


@pytest.mark.parametrize(
    ("base", "resolved"),
    [
        ("org/model", "org/model"),
        ("gpt2", "gpt2"),
        ("org/here", "{folder}/org/here"),
        ("here", "{folder}/here"),
        ("./gone", "{folder}/gone"),
        ("a/b/c", "{folder}/a/b/c"),
        ("tiny.gguf", "{folder}/tiny.gguf"),
        ("org/tiny.GGUF", "{folder}/org/tiny.GGUF"),
        ("package:some/tiny.gguf", "package:some/tiny.gguf"),
        ("/abs/model", "/abs/model"),
    ],
)
def test_which_bases_are_local(write: Write, tmp_path: Path, base: str, resolved: str) -> None:
    for folder in ("sub/org/here", "sub/here"):
        (tmp_path / folder).mkdir(parents=True)
    recipe = load_recipe(write(f"model: {{base: {base}}}\ndata: {{train: x}}", "sub/recipe.yaml"))
    assert recipe.model.base == resolved.format(folder=tmp_path / "sub")


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("own:score", "own.py"),
        ("metrics.own:score", "metrics/own.py"),
        ("metrics/own.py:score", "metrics/own.py"),
        ("../own.py:score", "../own.py"),
    ],
)
def test_a_scorer_of_one_s_own_is_a_file_beside_the_recipe(
    write: Write, tmp_path: Path, written: str, file: str
) -> None:
    evaluate = f"evaluate: {{scorer: '{written}', allow_code_execution: true}}"
    path = write(f"model: {{base: a/b}}\ndata: {{train: hub:x}}\n{evaluate}", "sub/recipe.yaml")
    resolved = os.path.normpath(tmp_path / "sub" / file)
    recipe = load_recipe(path)
    assert recipe.evaluate.scorer == f"{resolved}:score"
    assert load_recipe(path, [f"evaluate.scorer={resolved}:score"]).evaluate.scorer == f"{resolved}:score"
    assert [one.what for one in missing_files(recipe)] == [f"evaluate.scorer does not exist: {resolved!r}"]
    write("", os.path.relpath(resolved, tmp_path))
    assert missing_files(recipe) == []


def test_a_schema_is_a_file_beside_the_recipe(write: Write, tmp_path: Path) -> None:
    evaluate = "evaluate: {scorer: json_schema, schema_file: answer.json}"
    recipe = load_recipe(write(f"model: {{base: a/b}}\ndata: {{train: hub:x}}\n{evaluate}", "sub/recipe.yaml"))
    assert recipe.evaluate.schema_file == str(tmp_path / "sub" / "answer.json")
    assert [one.what for one in missing_files(recipe)] == [
        f"evaluate.schema_file does not exist: {str(tmp_path / 'sub' / 'answer.json')!r}"
    ]


def test_a_glob_in_a_folder_with_brackets(write: Write) -> None:
    write("{}", "a[1]/rows.jsonl")
    path = write("model: {base: a/b}\ndata: {train: '*.jsonl'}", "a[1]/recipe.yaml")
    assert problems(path) == []


def test_missing_files_have_the_place_of_their_key(write: Write, tmp_path: Path) -> None:
    write("{}", "rows.jsonl")
    text = """\
model: {base: ./gone, chat_template: chat.jinja}
data:
  train:
    - rows.jsonl
    - rosw.jsonl
    - parts/*.csv
    - hub:org/rows
  validation: ~
  split: {test_ids: "nul\\0.txt"}
"""
    recipe = load_recipe(write(text))
    found = missing_files(recipe)
    assert sorted(map(str, found)) == [
        f"recipe.yaml:1: model.base does not exist: '{tmp_path}/gone'",
        f"recipe.yaml:1: model.chat_template does not exist: '{tmp_path}/chat.jinja'",
        f"recipe.yaml:5: data.train.1 does not exist: '{tmp_path}/rosw.jsonl'\n    -> did you mean 'rows.jsonl'?",
        f"recipe.yaml:6: data.train.2 matches no file: '{tmp_path}/parts/*.csv'",
        f"recipe.yaml:9: data.split.test_ids does not exist: '{tmp_path}/nul\\x00.txt'",
    ]
    assert problems("recipe.yaml") == sorted(found, key=lambda one: int(one.where.split(":")[1]))


def test_problems_tells_typos_rules_and_missing_files_together(write: Write) -> None:
    text = """\
model: {base: org/model}
data:
  train: nowhere.jsonl
train:
  steps: 5
  epochs: 2
evaluate:
  scorer: exakt
  fields: [a]
"""
    found = problems(write(text))
    assert all(isinstance(one, Problem) for one in found)
    assert [f"{one.where}: {one.what}".replace(os.getcwd(), "") for one in found] == [
        "recipe.yaml:3: data.train does not exist: '/nowhere.jsonl'",
        "recipe.yaml:6: train.epochs has no effect: train.steps says how long to train",
        "recipe.yaml:8: evaluate.scorer is 'exakt'; it must be auto, exact, label, balanced, macro_f1, choice, number, "
        "contains, json_fields, json_schema, token_f1, rouge_l, chrf, tatqa, sql, tests, bits_per_byte, perplexity, "
        "likelihood or likelihood_norm or a function of your own as module:function",
    ]


def test_problems_of_an_unreadable_file(write: Write) -> None:
    assert [one.what for one in problems(write("a: ["))] == [
        "not valid YAML: expected the node content, but found '<stream end>'"
    ]
    assert [one.what for one in problems("none.yaml")] == ["there is no recipe 'none.yaml'"]


# ------------------------------------------------------------------------------------------------------- from Python


def test_recipe_from_python_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_from_dict(
        {
            "model": {"base": "a/b"},
            "data": {"train": (Path("x.jsonl"), "y.jsonl")},
            "method": FullMethod(),
            "export": [MergedExport(max_kl=0.5)],
        }
    )
    assert recipe.data.train == (str(tmp_path / "x.jsonl"), str(tmp_path / "y.jsonl"))
    assert recipe.method == FullMethod()
    assert recipe.export == (MergedExport(max_kl=0.5),)
    assert recipe.where("model.base") == "<python>"
    assert recipe.where("run.seed") == "default"
    assert recipe.run.name is None


def test_faults_of_python_values() -> None:
    endless: dict[str, object] = {}
    endless["a"] = endless
    with pytest.raises(FinetuneError, match="more than 20 levels"):
        recipe_from_dict(endless)
    with pytest.raises(FinetuneError) as caught:
        recipe_from_dict(
            {
                "model": {"base": object()},
                "data": {"train": "\ud800", "format": {"text"}},
                "run": {"seed": 10**5000, "name": 3},
            },
            where="cell 3",
        )
    found = [str(one).split("\n")[0] for one in caught.value.problems]
    assert "cell 3: model.base is an object of type object" in found
    assert "cell 3: data.format is an object of type set" in found
    assert "cell 3: half of a surrogate pair (\\uD800 to \\uDFFF) is no text" in found
    assert any(one.startswith("cell 3: run.seed is a number of") for one in found)
    assert any(one.startswith("cell 3: run.name is 3; it must be text of letters") for one in found)


# ----------------------------------------------------------------------------------------------------------- origins


def test_where_falls_back_to_the_nearest_section(write: Write) -> None:
    recipe = load_recipe(write(MINIMAL + "train:\n  epochs: 2\n"))
    assert recipe.where("train.epochs") == "recipe.yaml:4"
    assert recipe.where("train.steps") == "recipe.yaml:3"
    assert recipe.where("evaluate.scorer") == "default"
    assert recipe.where("run.name") == "the recipe's file name"


def test_origins_survive_a_copy_and_do_not_count_in_comparison(write: Write) -> None:
    recipe = load_recipe(write(MINIMAL))
    copy = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 9.0})})
    assert copy.where("data.train") == "recipe.yaml:2"
    assert copy != recipe
    plain = Recipe.model_validate(recipe.model_dump())
    assert plain == recipe
    assert plain.where("data.train") == "default"
    assert recipe != "something else"
