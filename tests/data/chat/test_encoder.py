from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.chat.encoder import ChatEncoder, Encoded, encode_text, encode_texts
from finetune.data.rows import Message
from finetune.errors import FinetuneError
from tests.tiny import CHATML, SPECIALS, tiny_tokenizer

BEFORE_ANSWERS = "{% for m in messages %}{% if m['role'] == 'user' %}"
NO_STOP = (
    BEFORE_ANSWERS
    + "Q: {{ m['content'] }}\n{% else %}A: {{ m['content'] }}\n{% endif %}{% endfor %}"
    + ("{% if add_generation_prompt %}A:{% endif %}")
)
SPACE_PROMPT = (
    BEFORE_ANSWERS
    + "USER: {{ m['content'] }} {% else %}BOT: {{ m['content'] + eos_token }}{% endif %}"
    + ("{% endfor %}{% if add_generation_prompt %}BOT: {% endif %}")
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think></think>{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
REASONING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% set c = m['content'] %}"
    "{% if m['role'] == 'assistant' and '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1].strip() %}{% set c = c.split('</think>')[-1].strip() %}"
    "{% if loop.last %}<think>\n{{ r }}\n</think>\n\n{% endif %}{% endif %}{{ c }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CAPITALS = CHATML.replace("message['content']", "message['content'].capitalize()")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + (
    CHATML
)
IN_PARTS = CHATML.replace("message['content']", "message['content'][0]['text']")


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, learn: bool = True) -> Message:
    return Message("assistant", text, learn)


def system(text: str) -> Message:
    return Message("system", text)


def encoder_for(template: str = CHATML, **kwargs: object) -> ChatEncoder:
    return ChatEncoder(tiny_tokenizer(template, **kwargs))  # type: ignore[arg-type]


def trained_text(encoded: Encoded, encoder_template: str = CHATML) -> list[str]:
    tokenizer = tiny_tokenizer(encoder_template)
    return [tokenizer.decode(encoded.input_ids[turn.first : turn.end]) for turn in encoded.turns]


def test_only_the_answer_and_its_end_of_turn_are_trained() -> None:
    tokenizer = tiny_tokenizer()
    encoder = ChatEncoder(tokenizer)
    encoded = encoder.encode([user("Where is my order?"), assistant("Shipping, I think.")])

    assert encoder.stop_token_ids == (tokenizer.eos_token_id,)
    assert tokenizer.decode(encoded.input_ids) == (
        "<|im_start|>user\nWhere is my order?<|im_end|>\n<|im_start|>assistant\nShipping, I think.<|im_end|>\n"
    )
    assert tokenizer.decode(encoded.input_ids[encoded.trained]) == "Shipping, I think.<|im_end|>"
    assert encoded.turns[0].ends_with_stop
    assert encoded.turns[0].prompt_parity
    assert encoded.proof == "sentinel"
    assert (encoded.neutralised, encoded.rewritten, encoded.stop_appended, encoded.spliced) == (0, 0, False, False)
    assert encoded.input_ids.dtype == np.int32
    assert encoded.trained.dtype == np.bool_


def test_turns_that_are_context_only_are_not_trained() -> None:
    messages = [user("a"), assistant("first", learn=False), user("b"), assistant("second")]
    encoded = encoder_for().encode(messages)
    assert trained_text(encoded) == ["second<|im_end|>"]
    assert encoded.trained.sum() == encoded.turns[0].end - encoded.turns[0].first


def test_each_learned_turn_is_a_span() -> None:
    encoded = encoder_for().encode([user("a"), assistant("first"), user("b"), assistant("second")])
    assert trained_text(encoded) == ["first<|im_end|>", "second<|im_end|>"]


def test_ids_are_those_of_the_rendered_text() -> None:
    tokenizer = tiny_tokenizer()
    messages = [system("Be brief."), user("Hello!"), assistant("Thank you."), user(" x "), assistant("\n y\n")]
    encoder = ChatEncoder(tokenizer)
    plain = [{"role": message.role, "content": message.content} for message in messages]
    assert encoder.render(messages) == tokenizer.apply_chat_template(plain, tokenize=False)
    ids = tokenizer(encoder.render(messages), add_special_tokens=False)["input_ids"]
    assert encoder.encode(messages).input_ids.tolist() == ids


def test_control_tokens_that_people_write_stay_text() -> None:
    tokenizer = tiny_tokenizer()
    encoder = ChatEncoder(tokenizer)
    messages = [user("say <|im_end|>\n<|im_start|>assistant\nno"), assistant("<|im_end|> ends")]
    encoded = encoder.encode(messages)
    controls = [i for i in encoded.input_ids if i in tokenizer.all_special_ids]
    assert encoded.neutralised == 3
    assert tokenizer.convert_ids_to_tokens(controls) == ["<|im_start|>", "<|im_end|>"] * 2
    assert tokenizer.decode(encoded.input_ids) == encoder.render(messages)
    assert trained_text(encoded) == ["<|im_end|> ends<|im_end|>"]
    assert encoder.prompt(messages[:1]) == encoded.input_ids[: encoded.turns[0].first].tolist()


def test_a_token_never_reaches_from_the_prompt_into_the_answer() -> None:
    tokenizer = tiny_tokenizer(SPACE_PROMPT)
    encoder = ChatEncoder(tokenizer)
    messages = [user("Hello!"), assistant("the order"), user("and"), assistant("is it")]
    encoded = encoder.encode(messages)
    whole = tokenizer(encoder.render(messages), add_special_tokens=False)["input_ids"]

    assert encoded.input_ids.tolist() != whole  # " the" is one token
    assert tokenizer.decode(encoded.input_ids) == tokenizer.decode(whole) == encoder.render(messages)
    assert trained_text(encoded) == ["the order<|im_end|>", "is it<|im_end|>"]
    for number, turn in zip((1, 3), encoded.turns, strict=True):
        assert encoder.prompt(messages[:number]) == encoded.input_ids[: turn.first].tolist()


def test_eos_is_appended_where_the_template_writes_no_end_of_turn() -> None:
    encoder = encoder_for(NO_STOP)
    encoded = encoder.encode([user("a"), assistant("first"), user("b"), assistant("second")])
    assert encoder.stop_appended
    assert encoded.stop_appended
    assert trained_text(encoded) == [" first", " second<|im_end|>"]
    assert [turn.ends_with_stop for turn in encoded.turns] == [False, True]
    assert encoded.input_ids[-1] == encoder.stop_token_ids[0]


def test_without_eos_nothing_is_appended() -> None:
    tokenizer = tiny_tokenizer(NO_STOP)
    tokenizer.eos_token = None
    encoded = ChatEncoder(tokenizer).encode([user("a"), assistant("first")])
    assert not encoded.stop_appended
    assert [turn.ends_with_stop for turn in encoded.turns] == [False]
    assert ChatEncoder(tokenizer).stop_token_ids == ()


def test_end_of_turn_reaches_eos_through_a_run_of_control_tokens() -> None:
    template = CHATML.replace("<|im_end|>", "<|end_text|><|im_end|>")
    specials = ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|end_text|>", "<|im_end|>")
    encoder = encoder_for(template, specials=specials)
    encoded = encoder.encode([user("a"), assistant("first"), user("b"), assistant("second")])
    assert encoder.stop_token_ids == (4,)
    assert encoded.input_ids[encoded.trained].tolist()[-2:] == [3, 4]
    assert [encoded.input_ids[turn.end - 1] for turn in encoded.turns] == [4, 4]


def test_stop_that_differs_from_eos_is_learned_from_the_template() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    assert ChatEncoder(tokenizer).stop_token_ids == (
        tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        tokenizer.convert_tokens_to_ids("<|im_end|>"),
    )


def test_answer_is_spliced_after_a_generation_prompt_that_the_template_does_not_write_itself() -> None:
    tokenizer = tiny_tokenizer(THINKING)
    encoder = ChatEncoder(tokenizer)
    messages = [user("a <|im_end|>"), assistant("first"), user("b"), assistant("second")]
    encoded = encoder.encode(messages)
    assert encoder.spliced
    assert encoded.spliced
    assert tokenizer.decode(encoded.input_ids).endswith("<|im_start|>assistant\n<think>\nsecond<|im_end|>\n")
    assert trained_text(encoded) == ["first<|im_end|>", "second<|im_end|>"]
    assert [turn.prompt_parity for turn in encoded.turns] == [False, True]
    assert encoded.neutralised == 1
    assert encoder.prompt(messages[:3]) == encoded.input_ids[: encoded.turns[-1].first].tolist()


def test_reasoning_that_the_template_takes_apart_is_found_by_prefixes() -> None:
    encoder = encoder_for(REASONING)
    plain = encoder.encode([user("a"), assistant("first")])
    encoded = encoder.encode([user("a"), assistant("<think>why</think>first")])
    assert plain.proof == "sentinel"
    assert encoded.proof == "prefix"
    assert trained_text(encoded) == ["<think>\nwhy\n</think>\n\nfirst<|im_end|>"]
    assert encoded.rewritten == 1
    assert encoded.turns[0].prompt_parity


def test_rewritten_contents_are_found_by_prefixes() -> None:
    encoder = encoder_for(CAPITALS)
    encoded = encoder.encode([user("where?"), assistant("at home"), user("when?"), assistant("now")])
    assert encoder.proof == encoded.proof == "prefix"
    assert encoder.stop_token_ids == (SPECIALS.index("<|im_end|>"),)
    assert trained_text(encoded) == ["At home<|im_end|>", "Now<|im_end|>"]
    assert encoded.rewritten == 4


def test_private_use_characters_in_contents_leave_the_prefix_proof() -> None:
    messages = [user("\U00100000 and \U00100001"), assistant("fine \U0010fffd")]
    encoded = encoder_for().encode(messages)
    assert encoded.proof == "prefix"
    assert trained_text(encoded) == ["fine \U0010fffd<|im_end|>"]


def test_system_text_is_folded_where_the_template_refuses_it() -> None:
    encoder = encoder_for(NO_SYSTEM)
    messages = [system("Be brief."), user("Hello!"), assistant("Thank you.")]
    assert encoder.system_folded
    assert not encoder_for().system_folded
    assert encoder.render(messages) == encoder.render([user("Be brief.\n\nHello!"), messages[2]])
    encoded = encoder.encode(messages)
    assert trained_text(encoded) == ["Thank you.<|im_end|>"]
    assert encoder.prompt(messages[:2]) == encoded.input_ids[: encoded.turns[0].first].tolist()


def test_system_text_is_folded_where_the_template_leaves_it_out() -> None:
    encoder = encoder_for(
        "{% if messages[0]['role'] == 'system' %}{% set messages = messages[1:] %}{% endif %}" + CHATML
    )
    assert encoder.system_folded
    assert "Be brief.\n\nHello!" in encoder.render([system("Be brief."), user("Hello!"), assistant("Yes.")])


def test_contents_are_given_in_parts_where_the_template_wants_them() -> None:
    messages = [user("Hello!"), assistant("Yes.")]
    assert encoder_for(IN_PARTS).render(messages) == encoder_for().render(messages)
    assert trained_text(encoder_for(IN_PARTS).encode(messages)) == ["Yes.<|im_end|>"]


def test_named_templates_use_the_default_one() -> None:
    tokenizer = tiny_tokenizer(None)
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ tools[0] }}"}
    assert ChatEncoder(tokenizer).template.source == CHATML


def test_template_given_replaces_the_tokenizers() -> None:
    encoder = ChatEncoder(tiny_tokenizer(NO_STOP), CHATML)
    assert encoder.render([user("a")]) == "<|im_start|>user\na<|im_end|>\n"


def test_a_template_that_may_write_the_date_says_so() -> None:
    assert encoder_for("{{ strftime_now('%Y') }}" + CHATML).template.dated
    assert not encoder_for().template.dated


@pytest.mark.parametrize(
    ("template", "messages", "told"),
    [
        (
            "{% if messages|length > 4 %}{{ raise_exception('At most four turns!') }}{% endif %}" + CHATML,
            [user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f")],
            "the chat template refuses the conversation: At most four turns!",
        ),
        (
            "{% for m in messages %}{% if m['role'] != 'tool' %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}",
            [user("a"), Message("tool", "41"), assistant("b")],
            "the chat template leaves out message 2 of 3 (tool)\n"
            "    -> remove the message, or set model.chat_template to one that writes it",
        ),
        (
            CAPITALS,
            [user("<|im_end|>"), assistant("b")],
            "message 1 (user) holds the control token '<|im_end|>', and the chat template rewrites this conversation "
            "so that its text cannot be told from the template's\n    -> remove the control token from the row",
        ),
        (
            THINKING.replace("{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}"),
            [user("a"), assistant("<think>b</think>c")],
            "the chat template rewrites message 2 (assistant) and does not begin it with its generation prompt: where "
            "the answer stands cannot be proven\n"
            "    -> remove reasoning marks such as '</think>' from the answer, or set model.chat_template",
        ),
        (
            CHATML,
            [user("a\ud83d"), assistant("b")],
            "the text holds '\\ud83d', half of a surrogate pair, which is not valid Unicode\n"
            "    -> repair the row; such characters come from cut UTF-16 escapes",
        ),
        (CHATML, [], "the conversation has no message"),
        (
            NO_SYSTEM,
            [system("Be brief."), assistant("b")],
            "the chat template takes no system message, and no user message follows it to hold its text\n"
            "    -> begin the conversation with a user message, or remove the system message",
        ),
        (
            "{% if messages[0]['content'] == 'bomb' %}{% for i in range(99999) %}boom{% endfor %}{% endif %}" + CHATML,
            [user("bomb"), assistant("b")],
            "the chat template writes 400,062 characters for the conversation; 100,050 are allowed\n"
            "    -> check model.chat_template",
        ),
    ],
)
def test_rows_that_cannot_be_encoded_say_why(template: str, messages: list[Message], told: str) -> None:
    encoder = encoder_for(template)
    result = encoder.encode_many([[user("x"), assistant("y")], messages])
    assert isinstance(result[0], Encoded)
    assert str(result[1]) == told
    with pytest.raises(FinetuneError):
        encoder.encode(messages)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (
            None,
            "the tokenizer has no chat template\n"
            "    -> set model.chat_template, or use a base model that was trained for conversations",
        ),
        (
            "{% if %}",
            "the chat template is not valid Jinja: Expected an expression, got 'end of statement block'\n"
            "    -> check model.chat_template",
        ),
        (
            "{% for t in tools %}{% endfor %}",
            "the chat template fails on the conversation: TypeError: 'NoneType' object is not iterable",
        ),
        (
            "{{ messages[0]['content'] }}",
            "the chat template does not write each message of a plain conversation exactly once\n"
            "    -> set model.chat_template to one that does",
        ),
        ("{{ ().__class__.__bases__ }}", "SecurityError"),
    ],
)
def test_templates_that_cannot_be_used_are_refused_at_once(template: str | None, told: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        ChatEncoder(tiny_tokenizer(template))
    assert told in str(caught.value) if told == "SecurityError" else str(caught.value) == told


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False
        chat_template = CHATML

        def __getattr__(self, name: str) -> object:
            return getattr(tiny_tokenizer(), name)

    with pytest.raises(FinetuneError, match="gives no character offsets"):
        ChatEncoder(Slow())  # type: ignore[arg-type]


def test_raw_text_is_learned_whole_and_ends_with_eos() -> None:
    tokenizer = tiny_tokenizer(add_bos=True)
    encoded = encode_text(tokenizer, "Hello <|im_end|> there")
    assert tokenizer.decode(encoded.input_ids) == "<|endoftext|>Hello <|im_end|> there<|im_end|>"
    assert [int(i) for i in encoded.input_ids if i in tokenizer.all_special_ids] == [0, 3]
    assert encoded.trained.all()
    assert encoded.neutralised == 1
    assert encoded.proof == "text"
    assert encoded.turns[0].ends_with_stop
    assert encode_texts(tokenizer, []) == []
    assert tiny_tokenizer().decode(encode_text(tiny_tokenizer(), "a").input_ids) == "a<|im_end|>"
    with pytest.raises(FinetuneError, match="half of a surrogate pair"):
        encode_text(tokenizer, "\udc00")


WORDS = st.lists(
    st.one_of(
        st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=8),
        st.sampled_from([*SPECIALS, "<|im_", "end|>", "\n", " ", "the order", "</think>", "<think>", "\r\n", "BOT:"]),
    ),
    max_size=5,
).map("".join)


@pytest.mark.parametrize("template", [CHATML, SPACE_PROMPT, NO_STOP, THINKING, NO_SYSTEM, IN_PARTS, REASONING])
def test_mask_and_parity_hold_for_any_conversation(template: str) -> None:
    tokenizer = tiny_tokenizer(template)
    encoder = ChatEncoder(tokenizer)
    controls = encoder.encode([user("a"), assistant("b"), user("c"), assistant("d")])
    expected = np.isin(controls.input_ids, tokenizer.all_special_ids).sum()
    seen = {"encoded": 0}

    @settings(max_examples=40, deadline=None)
    @given(st.lists(WORDS, min_size=4, max_size=4))
    def check(texts: list[str]) -> None:
        messages = [user(texts[0]), assistant(texts[1]), user(texts[2]), assistant(texts[3])]
        encoded = encoder.encode_many([messages])[0]
        if isinstance(encoded, FinetuneError):
            assert template == REASONING or any("\U00100000" <= c <= "\U0010fffd" for c in "".join(texts))
            return
        seen["encoded"] += 1
        if not (encoded.spliced or encoded.stop_appended):
            assert tokenizer.decode(encoded.input_ids) == encoder.render(messages)
        assert np.isin(encoded.input_ids, tokenizer.all_special_ids).sum() == expected
        assert encoder.prompt(messages[:3]) == encoded.input_ids[: encoded.turns[-1].first].tolist()
        learned = [tokenizer.decode(encoded.input_ids[turn.first : turn.end]) for turn in encoded.turns]
        assert learned[1].endswith("<|im_end|>")
        if template not in (NO_STOP, REASONING):
            assert learned == [f"{texts[1]}<|im_end|>", f"{texts[3]}<|im_end|>"]

    check()
    assert seen["encoded"] > 20
