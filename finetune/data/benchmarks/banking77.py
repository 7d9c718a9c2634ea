"""BANKING77: what a bank's customer wants, out of 77 intents (Casanueva et al. 2020, arXiv:2003.04807)."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.data.benchmarks.benchmark import Benchmark, Fields, either, exchange, has, repeats
from finetune.data.formats.contents import text_of
from finetune.data.rows import Content

# Enough of the 77 to know them by, the first in the original's order among them.
_TELLING = {"card_arrival", "card_linking", "lost_or_stolen_card", "pending_top_up", "edit_personal_details"}
_TELLING |= {"activate_my_card", "top_up_by_cash_or_cheque", "wrong_exchange_rate_for_cash_withdrawal"}


def _fits(records: Sequence[Fields]) -> bool:
    columns = either(has("text", "category"), has("text", "label", "label_text"))
    return columns(records) and any(_intent(fields) in _TELLING for fields in records)


def _intent(fields: Fields) -> object:
    return fields.get("category", fields.get("label_text"))


def _content(fields: Fields) -> Content:
    column = "category" if "category" in fields else "label_text"
    intent = text_of(fields, column, empty="empty answer")
    message = text_of(fields, "text", empty="empty prompt")
    return exchange(f"Name the intent of the bank customer's message.\n\n{message}", intent, label=intent)


BANKING77 = Benchmark(
    name="banking77",
    what="77 intents of a bank's customers",
    files={"train": ("train.csv",), "test": ("test.csv",)},
    fits=_fits,
    content=_content,
    scorer="label",
    check=repeats("text"),
    hub="mteb/banking77",
)
