"""The studio: one page in the browser from a text to a model that writes."""
