"""Widths as engine files, pixels in, detections out, for ONNX Runtime and OpenVINO."""
