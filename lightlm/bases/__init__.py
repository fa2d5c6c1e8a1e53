"""Models that training may start from: found, checked, and brought into one layout."""
