"""Scores of held-out text in bits per byte, their comparison, and baselines."""
