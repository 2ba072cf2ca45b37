"""Judges: the model itself or an OpenAI-compatible endpoint, whose answers are recorded."""
