"""A contestant as a model of lm-eval: `RuntimeLM(runtime, tokenizer)` answers what lm-eval's tasks ask.

Prompts are cut into tokens as lm-eval's own `hf` model does; what several requests have in common is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from finetune.errors import FinetuneError, Problem
from finetune.runtimes import Generation, Runtime

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

# As lm-eval has them, for models and tasks that do not say
LONGEST_CONTEXT = 2048
LONGEST_ANSWER = 256


class RuntimeLM(TemplateLM):  # type: ignore[misc]
    """Answers lm-eval's requests, each whole or not at all: nothing is cut off to fit.

    Args:
        runtime: who answers; None where prompts are only to be made.
        tokenizer: the contestant's own.
        context_length: tokens that it takes; unset means lm-eval's 2,048.
        stop: tokens that end an answer; unset means the tokenizer's end of text.
        names: what an item is called in messages, by its number.
        progress: told how many requests have been answered.
    """

    def __init__(
        self,
        runtime: Runtime | None,
        tokenizer: Any,
        *,
        context_length: int | None = None,
        stop: Sequence[int] = (),
        names: Mapping[int, str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self._runtime, self.tokenizer = runtime, tokenizer
        self.max_length = context_length or LONGEST_CONTEXT
        self.stop = tuple(stop) or (self.eot_token_id,)
        self.names, self.progress = names or {}, progress
        # Whole answers by number of item: lm-eval takes texts only, and has no word for one that was cut
        self.given: dict[int, Generation] = {}

    @property
    def runtime(self) -> Runtime:
        if self._runtime is None:
            raise ValueError("this model only makes prompts")
        return self._runtime

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return int(bos) if bos is not None else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Write a conversation in the contestant's chat template.

        Raises:
            FinetuneError: there is none, or it refuses the conversation.
        """
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    chat_history,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )
        except (TemplateError, ValueError) as error:
            raise FinetuneError(
                f"the chat template refuses the task's conversation: {error}",
                where="evaluate.tasks",
                fix="set chat_template: false",
            ) from None

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        bos = self.tokenizer.decode(self.prefix_token_id)
        if add_special_tokens is None and string.startswith(bos):
            add_special_tokens = False
        given = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(map(int, self.tokenizer.encode(string, **given)))

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a context and of its continuation, as lm-eval cuts them."""
        if context:
            before, after = self._encode_pair(context, continuation)
            return before, after
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        return (tokens[:1], tokens[1:]) if tokens[:1] == [self.prefix_token_id] else ([self.prefix_token_id], tokens)

    def require_room(self, requests: Sequence[Instance]) -> None:
        """Refuse requests that this contestant cannot take whole.

        Raises:
            FinetuneError: with every item whose prompt is too long, or whose answer has no tokens of its own.
        """
        problems: dict[str, Problem] = {}
        for request in requests:
            item = self.names.get(request.doc_id, f"item {request.doc_id}")
            what, fix = self._unfit(request)
            if what:
                problems.setdefault(item, Problem(item, what, fix))
        if problems:
            raise FinetuneError.of(list(problems.values()))

    def _unfit(self, request: Instance) -> tuple[str, str]:
        """Say what is wrong with a request and how it can be mended; nothing where it is well."""
        if request.request_type == "loglikelihood_rolling":
            return "", ""
        if request.request_type == "generate_until":
            asked, longest = len(self.tok_encode(request.args[0])), self._wishes(request)[1]
        else:
            before, after = self.pair(*request.args)
            if not before or not after:
                return f"the continuation {request.args[1]!r} has no tokens of its own", "give it a text"
            # The last token is only predicted
            asked, longest = len(before), len(after) - 1
        if asked + longest <= self.max_length:
            return "", ""
        what = f"{asked} tokens of prompt and {longest} of answer are more than the context of {self.max_length}"
        return what, "take fewer shots, set max_new_tokens lower, or shorten the item"

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return, for each request of (context, continuation), how likely it is, and whether it is the greedy answer.

        Raises:
            FinetuneError: as `require_room`.
        """
        self.require_room(requests)
        return self._loglikelihood_tokens([(request.args, *self.pair(*request.args)) for request in requests])

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        # Choices stand next to each other, but some also come again without their context
        families: dict[tuple[int, ...], list[int]] = {}
        for number, (_, before, _) in enumerate(requests):
            families.setdefault(tuple(before), []).append(number)
        scored = self.runtime.score_continuations(
            list(families), [[requests[number][2] for number in numbers] for numbers in families.values()]
        )
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for numbers, those in zip(families.values(), scored, strict=True):
            for number, one in zip(numbers, those, strict=True):
                found[number] = one.log_likelihood, one.greedy
        if self.progress is not None:
            self.progress(len(requests))
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Return the log-likelihood of whole texts, each in windows as long as the context that do not overlap."""
        rows: list[tuple[list[int], list[bool]]] = []
        counts = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = [make_disjoint_window(window) for window in windows]
            rows += [([*before, *after], [False] * len(before) + [True] * len(after)) for before, after in pairs]
            counts.append(len(pairs))
        scored = iter(self.runtime.log_likelihoods(rows))
        found = [sum(next(scored) for _ in range(count)) for count in counts]
        if self.progress is not None:
            self.progress(len(requests))
        return found

    def _wishes(self, request: Instance) -> tuple[tuple[str, ...], int]:
        """Return which texts end an answer, and how many tokens it may have."""
        wishes = normalize_gen_kwargs(request.args[1], LONGEST_ANSWER)
        until = wishes["until"]
        return tuple([until] if isinstance(until, str) else until), int(wishes["max_gen_toks"])

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Answer greedily; `given` keeps the whole answers.

        Raises:
            FinetuneError: as `require_room`.
        """
        self.require_room(requests)
        alike: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(self._wishes(request), []).append(number)
        texts = [""] * len(requests)
        done = 0
        for (until, longest), numbers in alike.items():
            answers = self.runtime.generate(
                [self.tok_encode(requests[number].args[0]) for number in numbers],
                max_new_tokens=longest,
                stop=self.stop,
                until=until,
                progress=self._after(done),
            )
            for number, answer in zip(numbers, answers, strict=True):
                self.given[requests[number].doc_id] = answer
                texts[number] = answer.text
            done += len(numbers)
        return texts

    def _after(self, done: int) -> Callable[[int], None] | None:
        progress = self.progress
        return None if progress is None else lambda more: progress(done + more)
