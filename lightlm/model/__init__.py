"""The shape of a model, what it costs, its layers, and its Hugging Face folder."""
