"""The uses of a registered version: text, scores, exports."""
