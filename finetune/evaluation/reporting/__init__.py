"""What a person reads: the page of a run, the page across runs, tables and pictures."""
