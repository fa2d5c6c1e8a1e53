"""Counted n-grams and a network: counting, the probabilities that follow, and their mixture."""
