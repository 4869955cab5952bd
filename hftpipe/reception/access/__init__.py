"""Who may come in: tokens and what they are good for, the files that hold secrets, TLS."""
