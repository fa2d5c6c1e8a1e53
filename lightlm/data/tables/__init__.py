"""Texts of tables: csv, JSON, parquet."""
