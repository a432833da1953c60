"""Which operating points are worth having: a grid of them, measured, down to the ladder."""
