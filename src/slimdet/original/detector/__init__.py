"""The original's detector as a thin layer over torchvision's parts, and its checkpoints."""
