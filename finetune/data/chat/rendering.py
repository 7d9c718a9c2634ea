"""Chat templates written fast: `Renderer(tokenizer, source).write(messages)` is `apply_chat_template(tokenize=False)`.

The template runs in the sandbox that transformers builds for it. What is saved is copying arguments that are plain text
already, and deciding anew at each access whether an attribute may be read: the sandbox decides by the object's type and
the attribute's name alone, so that one decision a pair is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_REMEMBERED = 4096
_OF_DICTS = frozenset(dir(dict))


class Renderer:
    """Writes conversations with one template and one tokenizer's special tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        self._tokenizer = tokenizer
        self._source = source
        self._specials = dict(tokenizer.special_tokens_map)
        self._plain = all(type(token) is str for token in self._specials.values())
        self._template: Any = None

    def write(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool, **more: Any) -> str:
        """Write a conversation.

        Args:
            messages: as `apply_chat_template` takes them.
            add_generation_prompt: end with the beginning of an answer.
            more: what else the template is given, such as `tools`.

        Raises:
            Exception: whatever the template raises; it is a program by someone else.
        """
        if more or not self._plain or not all(map(_is_plain, messages)):
            return str(
                self._tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    chat_template=self._source,
                    add_generation_prompt=add_generation_prompt,
                    tokenize=False,
                    **more,
                )
            )
        if self._template is None:
            self._template = _compiled(self._source)
        # A template may change what it is given
        text: str = self._template.render(
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._specials,
        )
        return text


def _is_plain(message: Mapping[str, Any]) -> bool:
    """Whether transformers would hand the message to the template as it is."""
    return len(message) == 2 and type(message.get("role")) is str and type(message.get("content")) is str


def _compiled(source: str) -> Any:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    template = _compile_jinja_template(source)
    environment = template.environment
    if "is_safe_attribute" not in vars(environment):
        environment.is_safe_attribute = _remembering(environment.is_safe_attribute)
        environment.getattr = _entries_first(environment.getattr)
    return template


def _remembering(decide: Callable[[Any, str, Any], bool]) -> Callable[[Any, str, Any], bool]:
    decided: dict[tuple[type, str], bool] = {}

    def is_safe_attribute(thing: Any, name: str, value: Any) -> bool:
        pair = (type(thing), name)
        found = decided.get(pair)
        if found is None:
            found = decide(thing, name, value)
            if len(decided) < _REMEMBERED:
                decided[pair] = found
        return found

    return is_safe_attribute


def _entries_first(read: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """Read `message.role` without looking for an attribute first, where a dict has none of that name."""

    def getattr_or_item(thing: Any, name: str) -> Any:
        if type(thing) is dict and name in thing and name not in _OF_DICTS:
            return thing[name]
        return read(thing, name)

    return getattr_or_item
