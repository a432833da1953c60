"""The original's box and mask heads, from torchvision's parts.

N boxes, K classes without background, C channels, M cells along a side of a mask.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from slimdet.original.configs.config import Config
from slimdet.original.detector.boxes import Coder, clip, nms_per_class, rescale
from slimdet.original.detector.pooler import PyramidRoIAlign


class SharedLayers(nn.Module):
    """Linear layers over flattened features, named as in torchvision's `TwoMLPHead`: fc6, fc7, and on for more."""

    def __init__(self, inputs: int, channels: int, layers: int) -> None:
        super().__init__()
        for number, (into, out) in enumerate(pairwise([inputs] + [channels] * layers), 6):
            layer = nn.Linear(into, out)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
            self.add_module(f"fc{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, channels]."""
        x = x.flatten(start_dim=1)
        for layer in self.children():
            x = layer(x).relu()
        return x


class RoIHeads(nn.Module):
    """From proposals to detections.

    Args:
        model: a config's `model`.
        test: a config's `test_cfg.rcnn`.
    """

    def __init__(self, model: Config, test: Config) -> None:
        super().__init__()
        box = model.bbox_head
        self.score_thresh, self.nms_thresh, self.detections_per_img = test.score_thr, test.nms_thr, test.max_per_img
        self.agnostic = box.reg_class_agnostic
        self.coder = Coder(box.target_means, box.target_stds)
        self.box_pool = _pooler(model.bbox_roi_extractor)
        inputs = box.in_channels * box.roi_feat_size**2
        self.box_head = SharedLayers(inputs, box.fc_out_channels, box.num_fcs)
        features = box.fc_out_channels if box.num_fcs else inputs
        self.box_predictor = FastRCNNPredictor(features, box.num_classes)
        if self.agnostic:
            self.box_predictor.bbox_pred = nn.Linear(features, 4)
        nn.init.normal_(self.box_predictor.cls_score.weight, std=0.01)
        nn.init.normal_(self.box_predictor.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.box_predictor.cls_score.bias)
        nn.init.zeros_(self.box_predictor.bbox_pred.bias)
        self.mask_pool, self.mask_head, self.mask_predictor = None, None, None
        if model.mask_head is not None:
            mask = model.mask_head
            self.mask_agnostic = mask.class_agnostic
            self.mask_pool = _pooler(model.mask_roi_extractor)
            self.mask_head = MaskRCNNHeads(mask.in_channels, [mask.conv_out_channels] * mask.num_convs, dilation=1)
            self.mask_predictor = MaskRCNNPredictor(
                mask.conv_out_channels if mask.num_convs else mask.in_channels,
                mask.conv_out_channels,
                1 if mask.class_agnostic else mask.num_classes,
            )

    def box_outputs(self, features: Mapping[str, Tensor], proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits [N, K + 1], 0 the background, and box codes [N, 4 (K + 1)], or [N, 4] where class-agnostic."""
        return self.box_predictor(self.box_head(self.box_pool(features, proposals)))

    def all_boxes(self, codes: Tensor, proposals: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes [N, K + 1, 4] of every class (one for all where class-agnostic) inside an image of `size`."""
        count = codes.shape[1] // 4
        anchors = proposals.repeat_interleave(count, dim=0)
        return clip(self.coder.decode_single(codes.reshape(-1, 4), anchors), size).reshape(-1, count, 4)

    def select(self, boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
        """Detections from boxes [N, K + 1 or 1, 4] at the scale they are to be given at and scores [N, K + 1].

        Returns:
            boxes [n, 4], labels [n] in 1..K and scores [n], at most `detections_per_img`.
        """
        rows, classes = torch.where(scores[:, 1:] > self.score_thresh)
        labels = classes + 1
        found = boxes[rows, 0 if boxes.shape[1] == 1 else labels]
        certain = scores[rows, labels]
        keep = nms_per_class(found, certain, labels, self.nms_thresh, self.detections_per_img)
        return {"boxes": found[keep], "labels": labels[keep], "scores": certain[keep]}

    def detect(
        self, features: Mapping[str, Tensor], proposals: Tensor, size: tuple[int, int], scale: float
    ) -> dict[str, Tensor]:
        """Detections in one image, at its original scale.

        Args:
            features: the pyramid of the one image.
            proposals: half-open boxes [N, 4] in pixels of the network's input.
            size: (height, width) there without padding.
            scale: pixels there per original pixel.
        """
        logits, codes = self.box_outputs(features, [proposals])
        scores = logits.softmax(dim=1)
        # Only what can be a detection is decoded: most of the N (K + 1) boxes cannot.
        rows = torch.where((scores[:, 1:] > self.score_thresh).any(dim=1))[0]
        boxes = self.all_boxes(codes[rows], proposals[rows], size)
        boxes = rescale(boxes.reshape(-1, 4), 1 / scale).reshape(boxes.shape)
        return self.select(boxes, scores[rows])

    def masks(self, features: Mapping[str, Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Masks [N, M, M] in 0..1 of boxes [N, 4] in pixels of the network's input, each of its own class."""
        logits = self.mask_logits(features, [boxes])
        return logits[torch.arange(len(labels)), 0 if self.mask_agnostic else labels].sigmoid()

    def mask_logits(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Mask logits [N, K + 1, M, M] of all images' boxes."""
        assert self.mask_pool is not None
        assert self.mask_head is not None
        assert self.mask_predictor is not None
        return self.mask_predictor(self.mask_head(self.mask_pool(features, boxes)))


def _pooler(extractor: Config) -> PyramidRoIAlign:
    layer = extractor.roi_layer
    return PyramidRoIAlign(layer.out_size, layer.sample_num, extractor.featmap_strides, extractor.finest_scale)
