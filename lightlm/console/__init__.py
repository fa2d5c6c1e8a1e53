"""Terminal output: progress, tables, reports, and prompts."""
