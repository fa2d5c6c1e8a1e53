"""LightLM: the best small language model that a given amount of wall-clock time allows."""

__version__ = "0.1.0"
