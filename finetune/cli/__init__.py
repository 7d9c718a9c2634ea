"""The command line: one short function a verb, no logic. `finetune --help` loads neither torch nor transformers."""

from finetune.cli.app import main

__all__ = ["main"]
