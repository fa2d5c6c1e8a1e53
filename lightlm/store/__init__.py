"""The one door to disk: durable commits, content-addressed stage folders, kernel locks,
journals.
"""
