"""The tokenizer: trained here, or adopted and checked."""
