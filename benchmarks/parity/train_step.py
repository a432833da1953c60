"""Write one training step of a detector, by checkpoint key, in the format of the original's reference runs.

    python benchmarks/parity/train_step.py CONFIG CHECKPOINT --data COCO.json --images DIR --take-all --out X.json

All images of the set (those without objects are left out) are one batch, at the config's train scale, not mirrored. The
losses of the four widths are computed and their gradients summed, in the original's order, then clipped and applied by
SGD as in the first iteration without warm-up.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slimdet.files import atomic_write
from slimdet.original.configs.config import Config, image_scales, read_config
from slimdet.original.data.dataset import read_set
from slimdet.original.data.train_data import collate, load, objects_of
from slimdet.original.detector import checkpoint
from slimdet.original.detector.transform import fit
from slimdet.original.testing.run import load_model
from slimdet.original.training.freezing import freeze
from slimdet.original.training.losses import losses

MAX_NORM, LR = 35, 0.02


def step(config: Config, weights: str, dataset: Config, images: list[int] | None = None) -> dict[str, Any]:
    """Losses, gradient norms and the change of every parameter; see the reference's README for the keys."""
    pictures = read_set(dataset)
    objects = objects_of(pictures)
    chosen = [
        i for i, number in enumerate(pictures.image_ids) if (number in images if images else len(objects[number].boxes))
    ]
    scale = image_scales(dataset.img_scale)[0]
    batch, targets = collate(
        [load(pictures, i, objects[pictures.image_ids[i]], dataset, scale, mirrored=False) for i in chosen]
    )
    model = load_model(config, weights)
    freeze(model, config.model.backbone)
    by_ours = {ours: theirs for theirs, ours in checkpoint.names(model).items()}
    parameters = {by_ours[ours]: parameter for ours, parameter in model.named_parameters() if ours in by_ours}
    found: dict[str, Any] = {"requires_grad": {name: p.requires_grad for name, p in parameters.items()}}
    norms = {theirs: ours for theirs, ours in checkpoint.names(model).items() if theirs.endswith(".bn.0.weight")}
    found["training_flag"] = {
        theirs.removesuffix(".weight"): model.get_submodule(ours.rpartition(".")[0]).training
        for theirs, ours in norms.items()
    }
    for number, (index, target) in enumerate(zip(chosen, targets, strict=True)):
        original = pictures.pictures[index].size
        sizes = {"ori_shape": original, "img_shape": target.size, "pad_shape": target.padded}
        meta: dict[str, Any] = {name: [*size, 3] for name, size in sizes.items() if size}
        if original:
            meta["scale_factor"] = fit(original, *scale).scale
        found[f"img_meta_{number}"] = meta | {"flip": False}
    found["losses"], found["grad_norm_after_width"] = {}, {}
    for width in model.widths:
        values = losses(model.twin(width), batch, targets, config.train_cfg)  # pyright: ignore[reportArgumentType]
        values["loss"].backward()
        row: dict[str, Any] = {name: value.sum().item() for name, value in values.items()}
        row |= {
            f"{name}_per_level": values[name].tolist() for name in ("loss_rpn_cls", "loss_rpn_reg") if name in values
        }
        found["losses"][str(width)] = row
        found["grad_norm_after_width"][str(width)] = _norm(parameters)
        print(width, found["losses"][str(width)], flush=True)
    found["grad_norms"] = {n: None if p.grad is None else p.grad.norm().item() for n, p in parameters.items()}
    found["grad_none"] = sorted(name for name, norm in found["grad_norms"].items() if norm is None)
    found["grad_samples"] = {
        name: p.grad.flatten()[np.linspace(0, p.numel() - 1, min(32, p.numel())).astype(np.int64)].tolist()
        for name, p in parameters.items()
        if p.grad is not None
    }
    found |= {"total_grad_norm": _norm(parameters), "clip_max_norm": MAX_NORM, "step_lr": LR}
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    torch.nn.utils.clip_grad_norm_([p for p in parameters.values() if p.grad is not None], MAX_NORM)
    torch.optim.SGD(parameters.values(), lr=LR, momentum=0.9, weight_decay=1e-4).step()
    changed = {name: (p.detach() - before[name]).norm().item() for name, p in parameters.items()}
    return found | {"param_change_norm_after_step": changed}


def _norm(parameters: dict[str, torch.nn.Parameter]) -> float:
    return float(sum(p.grad.double().square().sum() for p in parameters.values() if p.grad is not None) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("--data", required=True, help="annotations, COCO JSON")
    parser.add_argument("--images", required=True, help="the folder of the images")
    parser.add_argument("--image-ids", type=int, nargs="+", help="of the batch, in the order of the annotations")
    parser.add_argument("--img_scale", type=int, nargs=2, metavar=("LONG", "SHORT"), help="instead of the config's")
    parser.add_argument("--take-all", action="store_true", help="samplers that take every candidate")
    parser.add_argument("--seed", type=int, default=0, help="of the samplers")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    config = read_config(given.config)
    changes: dict[str, Any] = {"ann_file": given.data, "img_prefix": given.images}
    changes |= {"img_scale": tuple(given.img_scale)} if given.img_scale else {}
    for part in filter(None, config.train_cfg.values()) if given.take_all else ():
        part.sampler["num"] = 10**7
    np.random.seed(given.seed)
    found = step(config, given.checkpoint, Config({**config.data.train, **changes}), given.image_ids)
    with atomic_write(given.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
