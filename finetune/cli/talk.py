"""`finetune chat`: a conversation with a tuned model in the terminal, or one line from a pipe."""

from __future__ import annotations

import sys

from finetune.cli.output import DONE
from finetune.data import Message
from finetune.session import Run


def talk(work: Run) -> int:
    """Answer line by line until an empty line or the end of the input; the conversation is remembered."""
    asks = sys.stdin.isatty()
    history: tuple[Message, ...] = ()
    while True:
        if asks:
            sys.stdout.write("> ")
            sys.stdout.flush()
        line = sys.stdin.readline().rstrip("\n")
        if not line.strip():
            return DONE
        said = work.answer(line, history=history)
        sys.stdout.write(said + "\n")
        sys.stdout.flush()
        history = (*history, Message("user", line), Message("assistant", said))
