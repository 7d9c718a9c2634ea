"""A tiny random model of every family that can become GGUF, with its kind of tokenizer: `save_family(name, folder)`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, set_seed

from tests.tiny import tiny_tokenizer

TEXT = (
    "The customer asks where the order is and when it will arrive.",
    "Please answer with one word: billing, shipping, returns or other.",
    "Hello there. 1 and 2. How can I help you today? Thank you.",
    "I cannot log in to my account, the password reset mail never came.",
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content']"
    " + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] +"
    " ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


@lru_cache
def _pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Train BPE pieces with ▁ for spaces: the characters and merges of a SentencePiece-like vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(vocab_size=250, min_frequency=1, special_tokens=[], show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def sentencepiece_tokenizer(
    template: str | None = MISTRAL,
    *,
    specials: tuple[str, ...] = (),
    add_bos: bool = True,
    prefix: str = "first",
    rstrip: bool = False,
) -> PreTrainedTokenizerFast:
    """BPE with byte fallback, as Llama 2, Mistral, Gemma and Phi-3 have it; `prefix` as Metaspace's prepend_scheme."""
    pieces, merges = _pieces()
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {text: number for number, text in enumerate([*first, *pieces])}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if prefix == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")  # type: ignore[assignment]
    elif prefix == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])  # type: ignore[assignment]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])  # type: ignore[assignment]
    for text in ("<unk>", "<s>", "</s>", *specials):
        tokenizer.add_special_tokens(
            [AddedToken(text, special=True, normalized=False, rstrip=rstrip and text in specials)]
        )
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def gemma_tokenizer() -> PreTrainedTokenizerFast:
    return sentencepiece_tokenizer(GEMMA, specials=("<start_of_turn>", "<end_of_turn>"), prefix="gemma")


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """The byte-level tokenizer with Qwen's rules, which transformers 5 puts into every Qwen folder it opens."""
    tokenizer = tiny_tokenizer()
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    others = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = pre_tokenizers.Split(Regex(words + others), behavior="isolated")
    encode = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()  # type: ignore[assignment]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, encode])  # type: ignore[assignment]
    return tokenizer


def phi_tokenizer() -> PreTrainedTokenizerFast:
    specials = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>")
    return sentencepiece_tokenizer(PHI3, specials=specials, add_bos=False)


SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
MINISTRAL_ROPE = YARN | {
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "long_factor": [1.0 + 0.5 * number for number in range(6)],
    "short_factor": [1.0 + 0.1 * number for number in range(6)],
    "original_max_position_embeddings": 256,
}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
Builder = Callable[[], PreTrainedTokenizerBase]
# Name, class stem, settings, tokenizer: every family, and every way in which its files may differ
FAMILIES: dict[str, tuple[str, dict[str, Any], Builder]] = {
    "smollm2": ("Llama", {"tie_word_embeddings": True}, tiny_tokenizer),
    "llama3": ("Llama", {"rope_parameters": LLAMA3_ROPE, "head_dim": 32}, lambda: tiny_tokenizer(add_bos=True)),
    "llama-linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        tiny_tokenizer,
    ),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}, tiny_tokenizer),
    "smollm3": ("SmolLM3", {"tie_word_embeddings": True}, tiny_tokenizer),
    "mistral": ("Mistral", {"sliding_window": None}, sentencepiece_tokenizer),
    "ministral3": ("Ministral3", {"rope_parameters": MINISTRAL_ROPE, "head_dim": 32}, tiny_tokenizer),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}, qwen_tokenizer),
    "qwen2-yarn": ("Qwen2", {"rope_parameters": YARN}, qwen_tokenizer),
    "qwen3": ("Qwen3", {"head_dim": 32}, qwen_tokenizer),
    "gemma2": ("Gemma2", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}, gemma_tokenizer),
    "gemma3": (
        "Gemma3",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16, "rope_parameters": GEMMA3_ROPE},
        gemma_tokenizer,
    ),
    "phi3": ("Phi3", {"original_max_position_embeddings": 512, "tie_word_embeddings": False}, phi_tokenizer),
    "phi4-mini": (
        "Phi3",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 256, "tie_word_embeddings": True},
        tiny_tokenizer,
    ),
}


def build_family(name: str, **changed: Any) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return a random model and its tokenizer; `changed` overrides the configuration."""
    stem, settings, make = FAMILIES[name]
    tokenizer = make()
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    # Six rows more than the tokenizer has tokens: real embeddings are padded
    values = SIZES | ids | {"vocab_size": len(tokenizer) + 6} | settings | changed
    config_class = "Gemma3TextConfig" if stem == "Gemma3" else f"{stem}Config"
    config = getattr(transformers, config_class)(**values)
    set_seed(0)
    model = getattr(transformers, f"{stem}ForCausalLM")(config).eval()
    with torch.no_grad():
        # Fresh norms and biases are all ones and zeros, in which a mistake would not show
        for key, value in model.named_parameters():
            if "norm" in key or key.endswith(".bias"):
                value.add_(0.2 * torch.randn_like(value))
            else:
                value.mul_(3.0)
    return model, tokenizer


def save_family(name: str, folder: Path, *, dtype: torch.dtype = torch.float32, **changed: Any) -> Any:
    """Save a family's model and tokenizer as the merged folder of a run; returns the model in float32."""
    model, tokenizer = build_family(name, **changed)
    model.to(dtype).save_pretrained(folder, max_shard_size="200KB")
    tokenizer.save_pretrained(folder)
    return model.float()


def save_adapter(name: str, folder: Path, **settings: Any) -> Any:
    """Save a family's model to `folder/base` and a random LoRA over it to `folder/adapter`; returns the PeftModel."""
    from peft import LoraConfig, get_peft_model

    model, tokenizer = build_family(name)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    wanted: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    set_seed(1)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **(wanted | settings)))
    with torch.no_grad():
        for key, value in tuned.named_parameters():
            if "lora_" in key:
                value.copy_(0.2 * torch.randn_like(value))
    tuned.save_pretrained(folder / "adapter")
    return tuned.eval()
