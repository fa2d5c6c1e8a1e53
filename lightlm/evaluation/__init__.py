"""Scores of held-out text: bits per byte, the comparison of two models, baselines without a
network.
"""
