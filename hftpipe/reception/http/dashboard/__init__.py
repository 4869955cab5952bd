"""The page that shows the pipeline: its files, and the questions that it asks."""
