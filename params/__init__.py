"""Values: base.yaml with every one, and small overlays."""
