"""What counts as right: scorers, and what they read, run and compare."""
