"""Text from a model: how a token is chosen, the ids of several texts, their characters."""
