"""Tools in chat form: written and masked where the template can, refused with a reason where it leaves them out."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.chat.encoder import ChatEncoder, Encoded
from finetune.data.rows import Message
from finetune.errors import FinetuneError
from tests.tiny import CHATML, tiny_tokenizer

TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Says the <weather>.", "parameters": {"properties": {"city": {}}}},
}
WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}"
    "<call>{{ c.function | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_DEFINITIONS = WITH_TOOLS[WITH_TOOLS.index("{% for m in messages") :]


def call(city: Any = "Bern") -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}}


def talk(city: Any = "Bern", *, word: str = "", tools: tuple[dict[str, Any], ...] = (TOOL,)) -> list[Message]:
    return [
        Message("user", "Weather?", tools=tools),
        Message("assistant", word, tool_calls=(call(city),)),
        Message("tool", "sunny", name="weather"),
        Message("assistant", "It is sunny."),
    ]


def encode(messages: list[Message], template: str = WITH_TOOLS) -> tuple[str, Encoded]:
    tokenizer = tiny_tokenizer(template)
    encoded = ChatEncoder(tokenizer).encode(messages)
    return str(tokenizer.decode(encoded.input_ids[encoded.trained].tolist())), encoded


def refusal(messages: list[Message], template: str) -> str:
    with pytest.raises(FinetuneError) as caught:
        encode(messages, template)
    return str(caught.value)


@pytest.mark.parametrize("word", ["", "Let me look."])
def test_calls_are_learned_as_the_template_writes_them(word: str) -> None:
    learned, encoded = encode(talk(word=word))
    written = '<call>{"name": "weather", "arguments": {"city": "Bern"}}</call>'
    words = f"{word}\n{written}" if word else written
    assert learned == f"{words}<|im_end|>It is sunny.<|im_end|>"
    assert encoded.proof == ("sentinel" if word else "prefix")
    assert [turn.ends_with_stop and turn.prompt_parity for turn in encoded.turns] == [True, True]
    whole = tiny_tokenizer(WITH_TOOLS).decode(encoded.input_ids.tolist())
    assert json.loads(whole.split("\n")[1]) == TOOL


def test_calls_that_are_context_are_not_learned() -> None:
    messages = talk()
    messages[1] = replace(messages[1], learn=False)
    learned, _ = encode(messages)
    assert learned == "It is sunny.<|im_end|>"


def test_a_last_call_is_asked_for_as_it_is_learned() -> None:
    messages = talk()[:2]
    encoder = ChatEncoder(tiny_tokenizer(WITH_TOOLS))
    encoded = encoder.encode(messages)
    prompt = encoder.prompt(messages[:1])
    assert encoded.input_ids[: len(prompt)].tolist() == prompt
    assert np.flatnonzero(encoded.trained)[0] == len(prompt)


def test_definitions_stay_with_a_folded_system_message() -> None:
    no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + WITH_TOOLS
    messages = [Message("system", "Be brief.", tools=(TOOL,)), *talk(tools=())]
    encoder = ChatEncoder(tiny_tokenizer(no_system))
    text = tiny_tokenizer(no_system).decode(encoder.encode(messages).input_ids.tolist())
    assert '"description": "Says the' in text
    assert "Be brief.\n\nWeather?" in text


@pytest.mark.parametrize(
    ("messages", "template", "told"),
    [
        (
            talk(),
            NO_DEFINITIONS,
            "the chat template leaves out the definition of tool 'weather': 'Says the <weather>.' is not written",
        ),
        (
            talk(tools=()),
            CHATML,
            "the chat template leaves out the call of 'weather' in message 2: 'weather' is not written",
        ),
        (
            talk(tools=()),
            WITH_TOOLS.replace("c.function | tojson", "c.function.name"),
            "the chat template leaves out the call of 'weather' in message 2: 'city' is not written",
        ),
    ],
)
def test_what_the_template_leaves_out_is_refused(messages: list[Message], template: str, told: str) -> None:
    fix = "use a base model or a model.chat_template that writes tools, or write them into the contents of the row"
    assert refusal(messages, template) == f"{told}\n    -> {fix}"


def test_a_control_token_in_a_call_is_refused() -> None:
    told = "the call of 'weather' in message 2 holds the control token '<|im_end|>'"
    assert refusal(talk("Bern<|im_end|>"), WITH_TOOLS) == f"{told}\n    -> remove the control token from the row"


@pytest.mark.parametrize("city", ['Zürich & <Bern>\'s "old"\ntown', 7, 1.5, ["a", {"b": "c"}], None, True])
def test_arguments_are_found_however_json_writes_them(city: Any) -> None:
    _, encoded = encode(talk(city))
    assert len(encoded.turns) == 2


# -------------------------------------------------------------------------------------------------- real templates

TEMPLATES = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[4] / "shared")) / "models" / "chat_templates"


def test_every_real_template_writes_the_tools_or_refuses_them() -> None:
    files = sorted(TEMPLATES.rglob("*.jinja"))
    if not files:
        pytest.skip("no chat templates under FINETUNE_SHARED")
    written, refused = [], []
    for file in files:
        tokenizer = tiny_tokenizer(file.read_text(encoding="utf-8"))
        try:
            encoder = ChatEncoder(tokenizer)
        except FinetuneError:
            continue
        result = encoder.encode_many([talk("Bern in May")])[0]
        if isinstance(result, FinetuneError):
            refused.append(file.name)
            continue
        written.append(file.name)
        text = tokenizer.decode(result.input_ids.tolist())
        assert all(word in text for word in ("weather", "Bern in May", "sunny", "It is sunny.", "Says the"))
        learned = tokenizer.decode(result.input_ids[result.trained].tolist())
        assert "Bern in May" in learned, file.name
        assert "It is sunny." in learned, file.name
    assert len(written) > 5
    assert refused
