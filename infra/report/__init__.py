"""The report of a run: one self-contained page and one JSON file of a documented shape."""
