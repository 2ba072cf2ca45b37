"""Where a stage runs: one small protocol, one module per place."""
