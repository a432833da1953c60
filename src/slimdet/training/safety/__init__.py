"""What lets a training stop at any moment and lose nothing: checkpoints, bundles on the way, locks, signals."""
