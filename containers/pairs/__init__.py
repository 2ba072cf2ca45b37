"""Preference pairs: rows read and refused, packed, trained on with TRL, measured. reward and dpo share them."""
