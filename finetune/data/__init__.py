"""The data room: any file a domain expert has, recognised, checked, split, masked and certified."""

from finetune.data.certificate import Certificate
from finetune.data.chat.encoder import ChatEncoder
from finetune.data.corpus import read_corpus
from finetune.data.mixtures import bad_row_problems
from finetune.data.prepare import Prepared, prepare
from finetune.data.rows import Example, Message, Origin, Rejected, TokenRow
from finetune.data.tokenising.tokenised import TestItem

__all__ = [
    "Certificate",
    "ChatEncoder",
    "Example",
    "Message",
    "Origin",
    "Prepared",
    "Rejected",
    "TestItem",
    "TokenRow",
    "bad_row_problems",
    "prepare",
    "read_corpus",
]
