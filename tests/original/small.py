"""Configs of small detectors, made from those in configs/."""

from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = {"faster": "faster_rcnn", "mask": "mask_rcnn", "rpn": "rpn", "fast": "fast_rcnn", "fast_mask": "fast_mask_rcnn"}


def config_text(kind: str) -> str:
    return (CONFIGS / f"{FILES[kind]}_r50_fpn_1x.py").read_text()


def small_text(kind: str, folder: Path) -> str:
    """The config of that kind with a small detector for three classes, on the images of `folder`."""
    text = config_text(kind)
    for old, new in (
        ("depth=50", "depth=18"),
        ("in_channels=[256, 512, 1024, 2048]", "in_channels=[64, 128, 256, 512]"),
        ("in_channels=256", "in_channels=16"),
        ("out_channels=256", "out_channels=16"),
        ("feat_channels=256", "feat_channels=8"),
        ("fc_out_channels=1024", "fc_out_channels=32"),
        ("num_classes=81", "num_classes=4"),
        ("=2000", "=60"),
        ("score_thr=0.05", "score_thr=0.2"),
        ("(1333, 800)", "(96, 64)"),
        ("data_root + 'annotations/instances_val2017.json'", repr(str(folder / "coco.json"))),
        ("data_root + 'annotations/instances_train2017.json'", repr(str(folder / "coco.json"))),
        ("data_root + 'val2017/'", repr(str(folder))),
        ("data_root + 'train2017/'", repr(str(folder))),
        ("data_root + 'proposals/rpn_r50_fpn_1x_val2017.pkl'", repr(str(folder / "proposals.pkl"))),
        ("data_root + 'proposals/rpn_r50_fpn_1x_train2017.pkl'", repr(str(folder / "proposals.pkl"))),
    ):
        text = text.replace(old, new)
    return text
