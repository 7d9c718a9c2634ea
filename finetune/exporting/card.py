"""The model card of a run: `card_markdown(records)` is its `README.md`, Markdown with YAML front matter.

It says only what the run's records say; whatever comes from data is escaped.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import PurePath
from typing import Any

# An underscore between letters or digits is no emphasis, and a bracket that no link follows is a bracket
MARKUP = re.compile(r"[\\`*|~$#]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])")
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def card_markdown(records: Mapping[str, Any]) -> str:
    """Make the model card of a run, trained or evaluated or exported or not.

    Args:
        records: what the run folder holds, with the rows of its tables already in words: `name`, `base`, `identity`,
            `stages`, `certificate`, `tasks`, `forgetting` and `said`.

    Returns:
        Markdown that the hub reads: front matter, then text.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=False,  # noqa: S701 - the page is Markdown; `finalize` escapes every value
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["table"] = _table
    source = resources.files("finetune.exporting").joinpath("card.md.jinja").read_text(encoding="utf-8")
    said, certificate = records["said"], records["certificate"]
    return environment.from_string(source).render(
        front=Markdown(_front_matter(records)),
        name=records["name"],
        base=records["base"].get("name"),
        method=records["identity"].get("method.kind"),
        trained="train" in records["stages"],
        outcomes=said["outcomes"],
        tasks=list(zip(records["tasks"], said["scores"], said["panels"], strict=True)),
        beside=said["beside"],
        forgetting=records["forgetting"],
        proofs=said["proofs"],
        data=said["data"],
        problems=[one for one in (certificate or {}).get("problems", ()) if one["severity"] != "note"],
        training=said["training"],
        snippets=[(Markdown(language), Markdown(snippet)) for language, snippet in _snippets(records)],
    )


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""

    __slots__ = ()


def escaped(text: str) -> str:
    """Return text that Markdown (CommonMark and GitHub's) shows as it is, on one line, also inside a table."""
    one_line = " ".join(text.split())
    plain = "".join(HTML.get(character, character) for character in one_line)
    return MARKUP.sub(lambda found: f"\\{found.group()}", plain)


def _table(panel: Any) -> Markdown:
    """Return a panel's sentences and its table; its first `words` columns are aligned left, the others right."""
    said = [escaped(sentence) for sentence in (*panel.sentences, *panel.notes)]
    ruler = ("---" if place < panel.words else "---:" for place in range(len(panel.head)))
    lines = ["| " + " | ".join(map(escaped, row)) + " |" for row in (panel.head, *panel.rows)]
    table = "\n".join([lines[0], f"|{'|'.join(ruler)}|", *lines[1:]]) if panel.rows else ""
    return Markdown("\n\n".join(part for part in (*said, table) if part) + "\n")


def _finalized(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) and not isinstance(value, Markdown) else value


def _front_matter(records: Mapping[str, Any]) -> str:
    """Return YAML between rulers; `base_model` only where the base is one of the hub's."""
    import yaml

    identity = records["identity"]
    kind = identity.get("method.kind")
    whole = any(name.startswith("merged") for name in records["proofs"]) or kind == "full"
    front: dict[str, Any] = {"base_model": records["base"]["name"]} if _on_hub(records["base"]) else {}
    front["library_name"] = "transformers" if whole else "peft"
    front["license"] = "other"
    front["license_name"] = "see-base-model"
    front["tags"] = [str(tag) for tag in ("finetune", identity.get("objective.kind"), kind) if tag]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"


def _on_hub(base: Mapping[str, Any]) -> bool:
    """A hub model's fingerprint is its name and commit; files are known by their hash."""
    return bool(base) and base["fingerprint"] == f"{base['name']}@{base['revision']}"


# ------------------------------------------------------------------------------------------------------ how to use


def _snippets(records: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return how to use each file that can be loaded, as (language, code), exports first."""
    found = [_export_snippet(name, records) for name in records["proofs"]]
    if "train" in records["stages"]:
        full = records["identity"].get("method.kind") == "full"
        found.append(("python", _whole_snippet("weights", records) if full else _adapter_snippet(records)))
    return found


def _export_snippet(name: str, records: Mapping[str, Any]) -> tuple[str, str]:
    if name.endswith(".gguf"):
        system = records["identity"].get("data.system")
        told = f" --system-prompt {shlex.quote(system)}" if system else ""
        return "sh", f"# llama.cpp\nllama-cli --model {shlex.quote(f'exports/{name}')} --temp 0{told}"
    if name.startswith("ollama"):
        model = re.sub(r"[^a-z0-9._-]+", "-", records["name"].lower()).strip("-.") or "tuned"
        return "sh", f"ollama create {model} -f {shlex.quote(f'exports/{name}/Modelfile')}\nollama run {model}"
    return "python", _whole_snippet(f"exports/{name}", records)


def _whole_snippet(folder: str, records: Mapping[str, Any]) -> str:
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    load = f'folder = {_literal(folder)}\nmodel = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")'
    return _snippet(imports, load, records)


def _adapter_snippet(records: Mapping[str, Any]) -> str:
    imports = "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer"
    where, arguments = _base_arguments(records["base"])
    if where.startswith("find_spec"):
        imports = f"from importlib.util import find_spec\n\n{imports}"
    if records["identity"].get("method.kind") == "qlora":
        imports += ", BitsAndBytesConfig"
        arguments += f",\n    quantization_config={_quantization(records['identity'])}"
    load = (
        f'folder = "adapter"\nbase_folder = {where}\n'
        f'base = AutoModelForCausalLM.from_pretrained(\n    base_folder{arguments}, dtype="auto"\n)\n'
        "model = PeftModel.from_pretrained(base, folder)"
    )
    return _snippet(imports, load, records)


def _base_arguments(base: Mapping[str, Any]) -> tuple[str, str]:
    """Return where the base is loaded from and with what, as Python code."""
    name = base["name"]
    if _on_hub(base):
        return _literal(name), f", revision={_literal(base['revision'])}"
    if name.startswith("package:"):
        package, _, file = name.removeprefix("package:").partition("/")
        return f"find_spec({_literal(package)}).submodule_search_locations[0]", f", gguf_file={_literal(file)}"
    if name.lower().endswith(".gguf"):
        path = PurePath(name)
        return _literal(str(path.parent)), f", gguf_file={_literal(path.name)}"
    return _literal(name), ""


def _quantization(identity: Mapping[str, Any]) -> str:
    if identity["method.quantization"] == "int8":
        return "BitsAndBytesConfig(load_in_8bit=True)"
    double = identity["method.double_quantization"]
    return f'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant={double})'


def _snippet(imports: str, load: str, records: Mapping[str, Any]) -> str:
    """Put loading and one answer together."""
    if records["identity"].get("objective.kind") == "pretrain":
        prompt = 'inputs = tokenizer("Your text", return_tensors="pt")'
    else:
        system = records["identity"].get("data.system")
        turn = f'    {{"role": "system", "content": {_literal(system)}}},\n' if system else ""
        prompt = (
            f'messages = [\n{turn}    {{"role": "user", "content": "Your text"}},\n]\n'
            "inputs = tokenizer.apply_chat_template(\n"
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n)'
        )
    return (
        f"{imports}\n\n{load}\ntokenizer = AutoTokenizer.from_pretrained(folder)\n{prompt}\n"
        "output = model.generate(**inputs, max_new_tokens=256, do_sample=False)\n"
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))'
    )


def _literal(text: str) -> str:
    """Return a text as a Python literal in double quotes that cannot leave its line."""
    return json.dumps(text, ensure_ascii=False)
