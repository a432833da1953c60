"""Export: a width as one file that runs without torch."""
