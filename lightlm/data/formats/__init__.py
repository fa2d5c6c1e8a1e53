"""Texts of archives and of documents: web pages, notebooks, books, office files, PDFs, mail."""
