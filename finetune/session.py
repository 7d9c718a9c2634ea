"""A run that is open: its recipe, its folder, and what has been loaded of it, each thing once and only when asked for.

`Run` is also what notebooks hold: `run.metrics()`, `run.model()`, `run.answer("...")`.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.data import Message, Prepared, prepare
from finetune.data.chat.encoder import ChatEncoder
from finetune.data.tasks import read_task
from finetune.errors import FinetuneError, Problem
from finetune.hardware import Machine, inspect_machine, require_disk, resolve_dtype
from finetune.models import (
    Base,
    attach,
    attach_trained,
    check_method,
    folder_base,
    load_model,
    load_tokenizer,
    quantization,
    resolve_base,
)
from finetune.models.base import context_length
from finetune.recipe import (
    Export,
    FullMethod,
    MergedExport,
    Method,
    OllamaExport,
    PretrainObjective,
    Recipe,
    load_recipe,
    to_yaml,
)
from finetune.recipe.tasks import DataTask, EvaluateTask, HeldOutTask, LmEvalTask
from finetune.rundir import RunFolder, create_run, file_hash, open_run, write_json, write_json_lines
from finetune.tracking import read_metrics

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedTokenizerBase

    from finetune.evaluation import Task
    from finetune.evaluation.lm_eval.preparing import LmEval
    from finetune.runtimes import TransformersRuntime

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "gguf", "xllamacpp")


class Run:
    """A recipe at work.

    Args:
        recipe: the recipe.
        folder: the run folder; None until `create` makes it, after the data has been certified.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder | None = None) -> None:
        self.recipe = recipe
        self._folder = folder
        self._model: Any = None

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open the run that lives in a folder.

        Raises:
            FinetuneError: there is none, or its recipe cannot be read.
        """
        folder = open_run(path)
        return cls(load_recipe(folder.recipe), folder)

    @property
    def folder(self) -> RunFolder:
        if self._folder is None:
            raise FinetuneError("this run has no folder yet", where=self.recipe.where("run.name"), fix="train it first")
        return self._folder

    def create(self) -> RunFolder:
        """Make the run folder, or take up the one an earlier call of the same recipe left; write the certificate.

        Raises:
            FinetuneError: the folder belongs to another recipe, or the certificate has errors.
        """
        self.data.certificate.require()
        folder, identity = RunFolder(self._path), self.identity()
        if folder.is_untrained():
            self.require_fit()
            self.require_exports(self.recipe.export)
            if folder.exists():
                # Nothing has been learned yet that another recipe could spoil: the one that failed before was mended
                folder.update(identity=identity, stages={})
        folder = create_run(folder.path, recipe_text=to_yaml(self.recipe), identity=identity)
        self._folder = folder
        folder.update(base=self._about_base(), machine=self.machine.as_dict(), versions=versions())
        certificate = self.data.certificate.as_dict()
        write_json(folder.data / "certificate.json", certificate)
        write_json(folder.data / "splits.json", self._splits())
        write_json_lines(
            folder.data / "dropped.jsonl",
            [{"where": str(bad.origin), "reason": bad.reason, "detail": bad.detail} for bad in self.data.dropped],
        )
        if self.data.certificate.pieces:
            write_json_lines(folder.data / "pieces.jsonl", self._pieces())
        folder.finish("data", certificate=certificate["hash"], splits=dict(self.data.certificate.splits))
        return folder

    @property
    def _path(self) -> Path:
        return Path(self.recipe.run.folder) / (self.recipe.run.name or "run")

    def require_fit(self) -> None:
        """Refuse a method that does not fit the base, or a disk that cannot hold the run.

        Raises:
            FinetuneError: as `check_method`, or with the space needed and free.
        """
        trainable = check_method(self.base, self.recipe.method, where=self.recipe.where("method"))
        # Three checkpoints of weights and two moments in float32, and each export
        exports = sum(self._width(section) for section in self.recipe.export)
        aside = 0 if all(isinstance(section, MergedExport) for section in self.recipe.export) else 4
        require_disk(self._path, 36 * trainable.learning + (exports + aside) * trainable.total, "this run")

    def _width(self, section: Export) -> int:
        """Return the bytes that a weight takes in an export, at the most."""
        if isinstance(section, MergedExport):
            return resolve_dtype(self._format(section), self.machine).itemsize
        return 4 if section.quantization == "f32" else 2

    def _format(self, section: MergedExport) -> str:
        return self.recipe.model.dtype if section.dtype == "auto" else section.dtype

    def require_exports(self, sections: Sequence[Export]) -> None:
        """Refuse exports that could not be made or proven here, before anything is trained for them.

        Raises:
            FinetuneError: packages that are missing, an architecture without a GGUF form, a chat template that
                Ollama's language cannot say.
        """
        files = [section for section in sections if not isinstance(section, MergedExport)]
        if files:
            from finetune.exporting.llama_file import require_convertible

            require_convertible(self.base)
        if any(isinstance(section, OllamaExport) for section in files):
            from finetune.exporting.ollama import require_modelfile

            require_modelfile(self.tokenizer)

    def identity(self) -> dict[str, Any]:
        """Return all that decides the trained weights, flat, so that a difference can be named."""
        values: dict[str, Any] = {"base": self.base.fingerprint}
        settings = self.recipe.model_dump(mode="json", include={"model", "objective", "method", "train"})
        del settings["model"]["base"]
        for section, entries in settings.items():
            values.update({f"{section}.{key}": value for key, value in entries.items()})
        data = self.recipe.data.model_dump(mode="json", exclude={"train", "validation", "test"})
        values.update({f"data.{key}": value for key, value in data.items()})
        texts = self.recipe.evaluate.forgetting.texts
        if self.recipe.train.max_forgetting is not None:
            values["evaluate.forgetting.texts"] = file_hash(Path(texts)) if texts else None
        values["data.files"] = sorted(self.data.certificate.files.values())
        values["run.seed"] = self.recipe.run.seed
        return values

    def _about_base(self) -> dict[str, Any]:
        return {"name": self.base.name, "revision": self.base.revision, "fingerprint": self.base.fingerprint}

    def _pieces(self) -> Iterator[dict[str, Any]]:
        """Say of every piece of a text that was cut where it stands, so that each can be traced."""
        tested = [row for item in self.data.test for row in item.rows]
        for split, rows in (("train", self.data.train), ("validation", self.data.validation), ("test", tested)):
            for row in rows:
                if row.piece is not None:
                    yield {"id": row.id, "split": split, **asdict(row.piece)}

    def _splits(self) -> dict[str, list[str]]:
        return {
            # A raw text may have been cut into several rows
            "train": list(dict.fromkeys(row.document for row in self.data.train)),
            "validation": list(dict.fromkeys(row.document for row in self.data.validation)),
            "test": [item.example.id for item in self.data.test],
        }

    @cached_property
    def machine(self) -> Machine:
        return inspect_machine()

    @cached_property
    def base(self) -> Base:
        return resolve_base(self.recipe.model, where=self.recipe.where("model.base"))

    @cached_property
    def _tokenizer(self) -> tuple[PreTrainedTokenizerBase, list[Problem]]:
        return load_tokenizer(self.base, conversations=not isinstance(self.recipe.objective, PretrainObjective))

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._tokenizer[0]

    @property
    def notes(self) -> list[Problem]:
        """What was mended about the base's tokenizer."""
        return self._tokenizer[1]

    @cached_property
    def data(self) -> Prepared:
        return prepare(self.recipe, self.tokenizer, context_length=context_length(self.base))

    @cached_property
    def tasks(self) -> tuple[Task | LmEval, ...]:
        """Everything that is asked, in the order of `evaluate.tasks`.

        Raises:
            FinetuneError: items that cannot be asked or judged.
        """
        return tuple(map(self._task, self.recipe.evaluate.tasks))

    def _task(self, section: EvaluateTask) -> Task | LmEval:
        from finetune.evaluation.lm_eval.preparing import prepare_lm_eval

        if isinstance(section, HeldOutTask):
            return self.held_out
        if isinstance(section, LmEvalTask):
            return prepare_lm_eval(section, self.tokenizer, context_length=context_length(self.base))
        return self._data_task(section)

    def _data_task(self, section: DataTask) -> Task:
        from finetune.evaluation import make_task

        read = read_task(section, self.recipe, self.tokenizer, context_length=context_length(self.base))
        choosing = {None: section.scorer, True: "likelihood_norm", False: "likelihood"}[read.normalised]
        # The items are drawn already
        judging = {"max_items": None, "scorer": choosing, "fields": section.fields, "schema_file": section.schema_file}
        return make_task(
            self.recipe.evaluate.model_copy(update={**judging, "max_new_tokens": section.max_new_tokens}),
            read.items,
            name=read.name,
            train_references=read.train_references,
            labels=read.labels,
            raw_text=read.raw_text,
            stop=read.stop,
            seed=section.seed,
            notes=[str(note) for note in read.notes],
        )

    @cached_property
    def held_out(self) -> Task:
        """The recipe's own test rows as a task.

        Raises:
            FinetuneError: there are none, or the scorer does not fit them.
        """
        from finetune.evaluation import make_task

        return make_task(
            self.recipe.evaluate,
            self.data.test,
            train_references=self.data.train_references,
            labels=self.data.labels,
            raw_text=self.data.raw_text,
            stop=self.data.stop,
            seed=self.recipe.run.seed,
        )

    def _load_base(self, method: Method) -> Any:
        import torch

        # Weights that learn are float32, and with `full` all of them do
        full = isinstance(method, FullMethod)
        return load_model(
            self.base,
            dtype=torch.float32 if full else resolve_dtype(self.recipe.model.dtype, self.machine),
            device=self.machine.device,
            quantization=quantization(method),
            vocabulary=len(self.tokenizer),
        )

    def learner(self) -> Any:
        """Load the base and prepare the weights that learn; the run's model from then on."""
        from transformers import set_seed

        set_seed(self.recipe.run.seed)
        model = self._load_base(self.recipe.method)
        self._model = attach(model, self.recipe.method, where=self.recipe.where("method"))
        return self._model

    def settle(self) -> None:
        """After training: weights that all learned in float32 are read again in the recipe's number format."""
        if isinstance(self.recipe.method, FullMethod):
            self._model = None

    def model(self) -> Any:
        """Return the trained model: a live PeftModel, or with `full` a PreTrainedModel.

        Raises:
            FinetuneError: the run has not been trained.
        """
        if self._model is None:
            trained = self.folder.trained()
            if isinstance(self.recipe.method, FullMethod):
                self._model = self.load_folder(trained).eval()
            else:
                self._model = attach_trained(self._load_base(self.recipe.method), trained)
        return self._model

    def load_folder(self, path: Path) -> Any:
        """Load a model folder of the run in the recipe's number format."""
        return load_model(
            folder_base(path), dtype=resolve_dtype(self.recipe.model.dtype, self.machine), device=self.machine.device
        )

    def tuned(self) -> TransformersRuntime:
        """Return the trained model as a contestant."""
        from finetune.runtimes import TransformersRuntime

        return TransformersRuntime(self.model(), self.tokenizer, name="tuned")

    def untuned(self) -> TransformersRuntime:
        """Return the base as a contestant: the same weights with the adapter off, or with `full` the base anew."""
        from finetune.runtimes import TransformersRuntime

        if isinstance(self.recipe.method, FullMethod):
            model = load_model(
                self.base, dtype=resolve_dtype(self.recipe.model.dtype, self.machine), device=self.machine.device
            )
            return TransformersRuntime(model.eval(), self.tokenizer, name="base")
        return TransformersRuntime(self.model(), self.tokenizer, name="base", adapter=False)

    def metrics(self) -> pandas.DataFrame:
        """Return `metrics.jsonl` as a table, one line a log event."""
        import pandas

        return pandas.DataFrame(read_metrics(self.folder.metrics))

    def answer(self, text: str, *, history: tuple[Message, ...] = (), max_new_tokens: int = 256) -> str:
        """Answer one message as the tuned model, greedily, with the recipe's system prompt.

        Args:
            text: the user's message.
            history: earlier turns.
            max_new_tokens: longest answer.
        """
        encoder = ChatEncoder(self.tokenizer)
        system = (Message("system", self.recipe.data.system),) if self.recipe.data.system else ()
        prompt = encoder.prompt((*system, *history, Message("user", text)))
        (given,) = self.tuned().generate([prompt], max_new_tokens=max_new_tokens, stop=encoder.stop_token_ids)
        return given.text

    def _repr_html_(self) -> str:
        where = self._folder.path if self._folder else "not started"
        return f"<b>run</b> {html.escape(str(where))} of {html.escape(self.base.name)}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide a result."""
    import platform

    found = {"python": platform.python_version(), "finetune": metadata.version("finetune")}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
