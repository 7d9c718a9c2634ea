"""Rows to examples: `recognise` finds out how the columns read, `to_examples` in `examples.py` reads them so."""
