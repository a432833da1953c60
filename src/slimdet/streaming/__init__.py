"""Video: frames in, detections out, with a budget for each frame."""
