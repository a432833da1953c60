"""Detectors of torchvision's parts: building, describing, backbones, weights, image sizes, channel order."""
