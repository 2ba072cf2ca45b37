"""The candidates stage."""
