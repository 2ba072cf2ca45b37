"""The critique stage."""
