"""The original system, faithfully: its configs, checkpoints, conventions and commands (docs/original.md).

Legacy boxes are inclusive pixels, (x1, y1, x2, y2) with width x2 - x1 + 1. Everything in here works in half-open
coordinates, x2 + 1 and y2 + 1, in which legacy anchors, IoU, NMS, box coding and RoIAlign are torchvision's own. Legacy
boxes appear only where results and proposals are read and written.
"""
