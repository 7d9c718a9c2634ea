"""What a recipe may say, and how it is read: `load_recipe("recipe.yaml", ["train.epochs=1"])`.

schema.py says what there is; reader.py goes from a file to a `Recipe`; explaining.py goes back to text.
"""

from finetune.recipe.explaining import Effective, explain, json_schema, reference_markdown, to_yaml
from finetune.recipe.reader import load_recipe, problems, recipe_from_dict
from finetune.recipe.rules import missing_files, rule_problems
from finetune.recipe.schema import (
    DataSection,
    EvaluateSection,
    FullMethod,
    LoraMethod,
    LowRank,
    MergedExport,
    Method,
    ModelSection,
    Objective,
    PretrainObjective,
    QloraMethod,
    Recipe,
    RunSection,
    SampleSection,
    Section,
    SftObjective,
    SplitSection,
    TemplateSection,
    TrackSection,
    TrainSection,
    WandbTracker,
)

__all__ = [
    "DataSection",
    "Effective",
    "EvaluateSection",
    "FullMethod",
    "LoraMethod",
    "LowRank",
    "MergedExport",
    "Method",
    "ModelSection",
    "Objective",
    "PretrainObjective",
    "QloraMethod",
    "Recipe",
    "RunSection",
    "SampleSection",
    "Section",
    "SftObjective",
    "SplitSection",
    "TemplateSection",
    "TrackSection",
    "TrainSection",
    "WandbTracker",
    "explain",
    "json_schema",
    "load_recipe",
    "missing_files",
    "problems",
    "recipe_from_dict",
    "reference_markdown",
    "rule_problems",
    "to_yaml",
]
