"""Who answers: the run's own models by their tokens, other models by their own template, endpoints by conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from finetune.data import ChatEncoder, TestItem
from finetune.evaluation.compare import Answer
from finetune.evaluation.cost import Cost, endpoint_cost, measure_cost, prompt_of
from finetune.evaluation.lm_eval.preparing import LmEval
from finetune.evaluation.lm_eval.tasks import answer_lm_eval
from finetune.evaluation.sameness import Circumstances, circumstances_of
from finetune.evaluation.tasks import Task, answer, asked_hash, judged
from finetune.hardware import Machine
from finetune.recipe.costs import CostSection
from finetune.runtimes import EndpointRuntime, Runtime
from finetune.runtimes.endpoint import remarks

Watch = Callable[[int], None]

# Tokens of a continuation that is timed where a task asks for likelihoods only
TIMED_TOKENS = 64


class Contestant(Protocol):
    """Someone who answers tasks."""

    @property
    def name(self) -> str:
        """What results call it."""
        ...

    def refuses(self, task: Task | LmEval) -> str:
        """Return why it cannot take part in a task, or nothing."""
        ...

    def answer(self, task: Task, items: Sequence[TestItem], watch: Watch | None) -> list[Answer]:
        """Answer items of a task, in their order."""
        ...

    def answer_standard(self, task: LmEval, watch: Watch) -> list[Answer]:
        """Answer a task of lm-eval."""
        ...

    def cost(self, section: CostSection, task: Task, items: Sequence[TestItem], machine: Machine) -> Cost | None:
        """Measure what answering costs, on the items that `requests_of` draws."""
        ...

    def circumstances(self, versions: Mapping[str, str]) -> Circumstances:
        """Say how it answers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """A model on this machine.

    Attributes:
        runtime: who answers.
        tokenizer: its own.
        context_length: tokens that it takes, None where it does not say.
        stop: tokens that end an answer.
        encoder: writes conversations for a model with other tokens than the run's; None for those with the same, which
            are asked the very tokens that the run trains on.
    """

    runtime: Runtime
    tokenizer: Any
    context_length: int | None
    stop: Sequence[int]
    encoder: ChatEncoder | None = None

    @property
    def name(self) -> str:
        """The runtime's name."""
        return self.runtime.name

    def refuses(self, task: Task | LmEval) -> str:
        """Likelihoods of the run's tokens are no likelihoods of other ones; lm-eval asks for texts."""
        if self.encoder is not None and isinstance(task, Task) and task.scorer.needs_likelihood:
            return "its tokens are not those of the run"
        return ""

    def answer(self, task: Task, items: Sequence[TestItem], watch: Watch | None) -> list[Answer]:
        """Answer the run's own prompts, or the same conversations in the model's own template."""
        if self.encoder is None:
            return answer(self.runtime, task, items, watch)
        given = self.runtime.generate(
            [self._prompt(item) for item in items],
            max_new_tokens=task.max_new_tokens,
            stop=self.stop,
            progress=watch,
        )
        return [judged(item, one, task.scorer, asked_hash(item)) for item, one in zip(items, given, strict=True)]

    def answer_standard(self, task: LmEval, watch: Watch) -> list[Answer]:
        """Answer a task of lm-eval; its prompts are texts."""
        return answer_lm_eval(
            task,
            self.runtime,
            self.tokenizer,
            context_length=self.context_length,
            stop=self.stop,
            own_template=self.encoder is not None,
            watch=lambda name, done, total: watch(done),
        )

    def cost(self, section: CostSection, task: Task, items: Sequence[TestItem], machine: Machine) -> Cost | None:
        """Measure on this machine, one request at a time."""
        return measure_cost(
            section,
            self.runtime,
            [self._prompt(item) for item in items],
            max_new_tokens=task.max_new_tokens or TIMED_TOKENS,
            stop=self.stop,
            machine=machine,
        )

    def _prompt(self, item: TestItem) -> Sequence[int]:
        return prompt_of(item) if self.encoder is None else self.encoder.prompt(item.asked)

    def circumstances(self, versions: Mapping[str, str]) -> Circumstances:
        """Say how it answers."""
        return circumstances_of(self.runtime, self.tokenizer, versions, own_words=self.encoder is not None)


@dataclass(frozen=True, slots=True)
class Remote:
    """A model behind an API, which is sent conversations; `said` is told what is odd about its answers."""

    name: str
    endpoint: EndpointRuntime
    said: Callable[[str], None]
    _told: set[str] = field(default_factory=set)

    def refuses(self, task: Task | LmEval) -> str:
        """It answers questions; an endpoint tells no likelihoods, and lm-eval's prompts are no conversations."""
        if isinstance(task, LmEval):
            return "an endpoint is sent conversations, and lm-eval asks by text"
        return "an endpoint tells no likelihoods" if task.scorer.needs_likelihood else ""

    def answer(self, task: Task, items: Sequence[TestItem], watch: Watch | None) -> list[Answer]:
        """Send the conversations."""
        given = self.endpoint.reply(
            [_conversation(item) for item in items],
            max_new_tokens=task.max_new_tokens,
            ids=[item.example.id for item in items],
            progress=watch,
        )
        for remark in set(remarks(given)) - self._told:
            self._told.add(remark)
            self.said(f"{self.name}: {remark}")
        return [judged(item, one, task.scorer, asked_hash(item)) for item, one in zip(items, given, strict=True)]

    def answer_standard(self, task: LmEval, watch: Watch) -> list[Answer]:
        """Never asked: see `refuses`."""
        raise NotImplementedError(self.refuses(task))

    def cost(self, section: CostSection, task: Task, items: Sequence[TestItem], machine: Machine) -> Cost | None:
        """Measure with the way there and back."""
        conversations = [_conversation(item) for item in items]
        return endpoint_cost(section, self.endpoint, conversations, max_new_tokens=task.max_new_tokens)

    def circumstances(self, versions: Mapping[str, str]) -> Circumstances:
        """Nothing is known of what goes on behind an endpoint."""
        return Circumstances(template="", tokenizer="", dtype="", batch="", versions={}, own_words=True)


def _conversation(item: TestItem) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.said} for message in item.asked]
