"""What is done with a registered version: text, scores, exports."""
