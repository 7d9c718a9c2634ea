"""finetune: from a domain corpus and a small base model to a tuned model, proven better and merged without loss.

import finetune as ft
recipe = ft.load_recipe("recipe.yaml")
run = ft.train(recipe)
ft.evaluate(run)
ft.export(run)

Names are imported when they are first used, so that `import finetune` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.errors import FinetuneError as FinetuneError
    from finetune.notebook import check as check
    from finetune.notebook import compare_runs as compare_runs
    from finetune.notebook import evaluate as evaluate
    from finetune.notebook import export as export
    from finetune.notebook import inspect as inspect
    from finetune.notebook import load_recipe as load_recipe
    from finetune.notebook import open_run as open_run
    from finetune.notebook import run as run
    from finetune.notebook import show_mask as show_mask
    from finetune.notebook import train as train
    from finetune.recipe import Recipe as Recipe

_HOMES = {
    "FinetuneError": "finetune.errors",
    "Recipe": "finetune.recipe",
    "check": "finetune.notebook",
    "compare_runs": "finetune.notebook",
    "evaluate": "finetune.notebook",
    "export": "finetune.notebook",
    "inspect": "finetune.notebook",
    "load_recipe": "finetune.notebook",
    "open_run": "finetune.notebook",
    "run": "finetune.notebook",
    "show_mask": "finetune.notebook",
    "train": "finetune.notebook",
}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
