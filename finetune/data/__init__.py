"""The data room: any file a domain expert has, recognised, checked, split, masked and certified."""

from finetune.data.certificate import Certificate
from finetune.data.prepare import Prepared, TestItem, bad_row_problems, prepare, read_corpus
from finetune.data.rows import Example, Message, Origin, Rejected, TokenRow

__all__ = [
    "Certificate",
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
