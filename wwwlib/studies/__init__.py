"""Studies: what only the notebooks measure, on top of the method and its baselines."""
