"""Measures the pipeline on the user's own machine: `figures` and `ground` below, one module a part, `report` above."""
