"""The original's training: all widths on the same batch, gradients summed, one step."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from slimdet.core.slimmable import slim
from slimdet.errors import ConfigError, DataError, WeightsError
from slimdet.original.configs.config import Config, image_scales
from slimdet.original.data.dataset import PictureSet
from slimdet.original.data.train_data import collate, load, objects_of
from slimdet.original.detector import checkpoint
from slimdet.original.detector.detector import WIDTHS, OriginalDetector, architecture_of, build
from slimdet.original.testing import results
from slimdet.original.testing.recall import average_recall, objects
from slimdet.original.testing.run import ahead, interleave, number_of_classes, read_split, run_model
from slimdet.original.testing.scores import score
from slimdet.original.training.freezing import freeze
from slimdet.original.training.log import Log
from slimdet.original.training.losses import Target, losses
from slimdet.original.training.schedule import batches, chance, draw_scale, learning_rate
from slimdet.training.processes.distributed import Place, flat_gradients, set_gradients

CLASSIFIER = Path("logs/s_resnet50_0.25_0.5_0.75_1.0.pt")  # where the original looked for its S-ResNet-50


@dataclass
class Progress:
    """How far a training is: whole epochs and iterations that are done."""

    epoch: int = 0
    iteration: int = 0


@dataclass(frozen=True)
class Share:
    """What one process computes in an iteration: a batch [B, 3, H, W], what is in it, and where samplers draw from."""

    batch: Tensor
    targets: list[Target]
    draw: np.random.RandomState


class Trainer:
    """Trains the detector of a config.

    Args:
        work_dir: where checkpoints and logs go.
        text: the config file's text, which checkpoints carry.
        place: this process among all.
        shares: the parts of each batch that this process computes; by default its own. One process that computes the
            shares of several does what several would.
        world: the number of shares.
    """

    def __init__(
        self,
        config: Config,
        work_dir: Path,
        text: str = "",
        seed: int = 0,
        place: Place | None = None,
        shares: Sequence[int] | None = None,
        world: int | None = None,
    ) -> None:
        self.config, self.work_dir, self.text, self.seed = config, work_dir, text, seed
        self.place = place or Place()
        self.shares, self.world = shares or (self.place.rank,), world or self.place.world
        self.pictures = read_split(config, "train")
        self.objects = objects_of(self.pictures)
        annotated = {annotation["image_id"] for annotation in self.pictures.coco["annotations"]}
        self.usable = [
            index
            for index, picture in enumerate(self.pictures.pictures)
            if picture.id in annotated and (picture.size is None or min(picture.size) >= 32)
        ]
        if not self.usable:
            raise ConfigError(f"{config.data.train.ann_file} has no image of 32 pixels and more with an annotation")
        torch.manual_seed(seed)  # the same start in every process
        self.model = slim(build(architecture_of(config)), WIDTHS, "backbone").to(self.place.device)
        freeze(self.model, config.model.backbone)
        rule = {key: value for key, value in config.optimizer.items() if key != "type"}
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(self.parameters, **rule)
        self.progress = Progress()

    def start(self, warn: Callable[[str], None]) -> None:
        """Load what the training starts from: work_dir/latest.pth, or else resume_from, load_from or the classification
        weights."""
        latest = self.work_dir / "latest.pth"
        resume = latest if latest.exists() else self.config.resume_from
        if resume:
            self.resume(Path(resume))
            warn(f"resumed from {resume}: {self.progress.epoch} epochs are done")
        elif self.config.load_from:
            checkpoint.load(self.model, self.config.load_from)
        elif self.config.model.pretrained is not None:
            given = Path(self.config.model.pretrained)
            file = given if given.is_file() else CLASSIFIER
            if not file.is_file():
                raise WeightsError(
                    f"the S-ResNet-50 start {file} is missing; put it there or set model.pretrained to its path or None"
                )
            checkpoint.load_classifier(self.model, file)

    def resume(self, path: Path) -> None:
        """Take weights, optimizer state and progress from a checkpoint that `save` wrote.

        Raises:
            WeightsError: it does not fit, or holds no optimizer state of this training.
        """
        rest = checkpoint.load(self.model, path)
        meta = rest.get("meta") or {}
        try:
            self.optimizer.load_state_dict(rest["optimizer"])
            self.progress = Progress(int(meta["epoch"]), int(meta["iter"]))
        except (KeyError, ValueError, TypeError) as error:
            raise WeightsError(
                f"{path} cannot be resumed from ({' '.join(str(error).split())}); set load_from to take its weights"
            ) from None

    def prepare(self, epoch: int, iteration: int, images: Sequence[Sequence[int]]) -> list[Share]:
        """Read and transform this process's shares of an iteration.

        Args:
            epoch, iteration: counted from 0, the iteration within its epoch; chance depends on them.
            images: each share's images, by their place in the training set.
        """
        return [self._share(chance(self.seed, epoch, iteration, share), images[share]) for share in self.shares]

    def _share(self, draw: np.random.RandomState, images: Sequence[int]) -> Share:
        dataset = self.config.data.train
        scales, items = image_scales(dataset.img_scale), []
        for index in images:
            scale, mirrored = draw_scale(scales, draw), draw.random_sample() < dataset.flip_ratio
            own = self.objects[self.pictures.pictures[index].id]
            items.append(load(self.pictures, index, own, dataset, scale, mirrored))
        return Share(*collate(items), draw)

    def gradients(self, share: Share) -> dict[float, dict[str, float]]:
        """Add one share's gradients, summed over the widths; return {width: losses}.

        Raises:
            DataError: a loss is not finite.
        """
        device = self.place.device
        batch, targets = share.batch.to(device), [target.to(device) for target in share.targets]
        found = {}
        for width in self.model.widths:
            detector = cast(OriginalDetector, self.model.twin(width))
            values = losses(detector, batch, targets, self.config.train_cfg, share.draw)
            values["loss"].backward()
            found[width] = {name: value.sum().item() for name, value in values.items()}
            if not math.isfinite(found[width]["loss"]):
                raise DataError(
                    f"the loss at width {width} is {found[width]['loss']} after {self.progress.iteration} iterations; "
                    f"lower optimizer.lr (now {self.config.optimizer.lr:g}) or lengthen lr_config.warmup_iters"
                )
        return found

    def step(self, shares: Sequence[Share]) -> dict[float, dict[str, float]]:
        """One iteration; return the first share's losses at each width."""
        found, total = [], None
        for share in shares:
            self.optimizer.zero_grad(set_to_none=True)
            found.append(self.gradients(share))
            if self.world > 1:
                flat = flat_gradients(self.parameters)
                total = flat if total is None else total + flat
        if total is not None:
            set_gradients(self.parameters, self.place.sum(total) / self.world)
        clip = (self.config.optimizer_config or {}).get("grad_clip")
        if clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, clip.max_norm, clip.norm_type)
        rule, progress = self.config.lr_config, self.progress
        rate = learning_rate(self.config.optimizer.lr, rule, progress.epoch, progress.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.progress.iteration += 1
        return found[0]

    def train(self, validate: bool, tell: Callable[[str], None]) -> None:
        """Train to the config's last epoch; save after each, and measure every width where `validate` says so."""
        data, progress = self.config.data, self.progress
        wide = [self._wide(index) for index in self.usable]
        every = (self.config.checkpoint_config or {}).get("interval", 1)
        log = Log(self.work_dir, self.config, tell) if self.place.rank == 0 else None
        while progress.epoch < self.config.total_epochs:
            epoch = progress.epoch
            plan = batches(wide, data.imgs_per_gpu, self.world, self.seed, epoch)

            def prepare(number: int, epoch: int = epoch, plan: list[list[list[int]]] = plan) -> list[Share]:
                return self.prepare(epoch, number, [[self.usable[i] for i in share] for share in plan[number]])

            for number, shares in enumerate(ahead(prepare, range(len(plan)), data.workers_per_gpu), 1):
                found = self.step(shares)
                if log:
                    rate = self.optimizer.param_groups[0]["lr"]
                    log.iteration(epoch + 1, number, len(plan), progress.iteration, rate, found)
            progress.epoch += 1
            if self.place.rank == 0 and (progress.epoch % every == 0 or progress.epoch == self.config.total_epochs):
                self.save()
            if validate:
                numbers = self.validate()
                if log:
                    log.validation(progress.epoch, progress.iteration, numbers)

    def _wide(self, index: int) -> bool:
        size = self.pictures.pictures[index].size
        return size is not None and size[1] > size[0]

    def save(self) -> Path:
        """Write epoch_N.pth, and latest.pth as a link to it."""
        path = self.work_dir / f"epoch_{self.progress.epoch}.pth"
        meta = {"epoch": self.progress.epoch, "iter": self.progress.iteration, "time": time.asctime()}
        meta |= {"mmdet_version": "0.0.0", "config": self.text}
        checkpoint.write(path, self.model, meta, optimizer=self.optimizer.state_dict())
        link = self.work_dir / ".latest.pth"
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)
        link.replace(self.work_dir / "latest.pth")
        return path

    def validate(self) -> dict[float, dict[str, float]]:
        """COCO's first number per evaluation (recalls for proposals) on data.val at every width; {} but in rank 0."""
        pictures = read_split(self.config, "val")
        found = run_model(self.model, self.model.widths, self.config, self.config.data.val, pictures, self.place)
        freeze(self.model, self.config.model.backbone)
        found = interleave(self.place.gather(found))
        if self.place.rank:
            return {}
        return {width: self._numbers(pictures, found[width]) for width in self.model.widths}

    def _numbers(self, pictures: PictureSet, found: Sequence[Any]) -> dict[str, float]:
        ids = pictures.image_ids
        if not number_of_classes(self.config):
            recalls = average_recall(objects(pictures.coco, ids), found)
            return dict(zip(("AR@100", "AR@300", "AR@1000"), recalls, strict=True))
        kinds = ("bbox", "segm") if self.config.model.mask_head else ("bbox",)
        given = results.to_coco(found, ids, pictures.category_ids)
        return {f"{kind}_mAP": score(pictures.coco, given, kind).values[0] for kind in kinds}
