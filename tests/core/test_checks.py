"""What is refused before slimming starts."""

import pytest
import torch
from torch import nn
from torchvision.models import detection as D

from core.small import EVERYTHING, SMALL_EXAMPLE, Small, slim_small
from slimdet.core.slimmable import slim
from slimdet.errors import ConfigError, UnknownLayerError


def test_unknown_layers_are_refused_by_name() -> None:
    with pytest.raises(UnknownLayerError, match=r"backbone \(SSDFeatureExtractorVGG with scale_weight\)"):
        slim(D.ssd300_vgg16(weights=None, weights_backbone=None))
    for unknown in (nn.LayerNorm(4), nn.PReLU(4), nn.Embedding(3, 4), nn.LSTM(3, 4), nn.Bilinear(2, 2, 2)):
        with pytest.raises(UnknownLayerError, match=type(unknown).__name__):
            slim(nn.Sequential(nn.Conv2d(3, 4, 1), unknown), (0.5, 1.0), EVERYTHING)
    bare = nn.Sequential(nn.Conv2d(3, 4, 1))
    bare.register_parameter("gain", nn.Parameter(torch.ones(1)))
    with pytest.raises(UnknownLayerError, match="'gain'"):
        slim(bare, (0.5, 1.0), EVERYTHING)
    parametrised = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)))
    with pytest.raises(UnknownLayerError, match=r"ParametrizedConv2d|ParametrizationList"):
        slim(parametrised, (0.5, 1.0), EVERYTHING)
    with pytest.raises(UnknownLayerError, match="slimmable already"):
        slim(slim_small(), (0.5, 1.0), EVERYTHING)


def test_scopes_that_narrow_nothing_or_would_narrow_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="'neck' is not one of 'backbone', 'detector'"):
        slim(Small(), (0.5, 1.0), "neck", example=SMALL_EXAMPLE)
    with pytest.raises(UnknownLayerError, match="narrows no layer"):
        slim(Small(), (0.5, 1.0), "backbone", example=SMALL_EXAMPLE)
    with pytest.raises(UnknownLayerError, match="finds no output layer"):
        slim(Small(), (0.5, 1.0), "detector", example=SMALL_EXAMPLE)
