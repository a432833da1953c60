"""The command line: verbs, their flags and help, what they print."""
