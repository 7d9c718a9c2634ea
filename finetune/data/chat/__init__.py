"""Conversations to masked tokens, proven against the chat template: `ChatEncoder` in `encoder.py` is the way in."""
