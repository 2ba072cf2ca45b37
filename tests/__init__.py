"""Tests: rules/ (the house), unit/, stages/, flows/, containers/, ui/, gpu/."""
