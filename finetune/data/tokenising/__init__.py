"""A corpus to rows of tokens, in worker processes and from the cache: `tokenise` in `tokenised.py` is the way in."""
