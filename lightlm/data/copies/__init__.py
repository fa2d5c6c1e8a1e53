"""Copies, near copies and leaks among the documents of a subset."""
