"""Views that stay on the terminal and are driven with keys: the only room beside `cli` that draws."""
