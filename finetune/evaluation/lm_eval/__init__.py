"""Tasks of lm-eval, asked of this project's contestants; lm-eval makes the prompts and judges the answers."""
