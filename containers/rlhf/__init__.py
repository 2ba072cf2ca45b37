"""The rlhf stage."""
