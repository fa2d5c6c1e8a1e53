"""From documents to batches: source, subset, tokenizer, token shards, loader."""
