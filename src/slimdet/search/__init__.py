"""Which operating points are worth having, a grid of them down to the ladder; which widths of stages find most."""
