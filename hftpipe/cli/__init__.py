"""The command line: one file a command, no logic. Results go to stdout, everything for people to stderr."""
