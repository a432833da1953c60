"""The original's config files: a grammar of literals, the fields it knew, the check of both."""
