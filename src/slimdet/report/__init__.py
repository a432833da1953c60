"""What widths cost, and plots of what was measured."""
