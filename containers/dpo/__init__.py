"""Align a policy with recorded preferences, without a reward model."""
