"""The disk: durable commits, content-addressed stage folders, kernel locks, journals."""
