"""The original's training: targets, losses, schedule, several processes."""
