"""Exact resume: training states, the numbering of what is random, signals that end a run, checkpoints that stay."""
