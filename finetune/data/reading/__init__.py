"""Files to rows, each with the place it was read from: `read_rows` in `sources.py` is the way in."""
