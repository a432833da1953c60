"""One function per verb, no logic; defaults are the settings'. `slimdet.cli.command` makes flags and help of it."""

import os
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Annotated, Any, Literal

from slimdet.cli import views
from slimdet.cli.command import Outcome, run
from slimdet.cli.flags import (
    AnyMemory,
    AnyPrecision,
    Convertible,
    Count,
    Device,
    Engine,
    EngineDevice,
    Existing,
    Fraction,
    Model,
    Natural,
    NonNegative,
    Positive,
    Proposals,
    Side,
    Source,
    Threads,
    Width,
    WidthOrAll,
    Widths,
)
from slimdet.cli.jobs import job
from slimdet.cli.points import benchmark, search, tune
from slimdet.cli.training import calibrate, train
from slimdet.cli.video import video
from slimdet.errors import ConfigError
from slimdet.exporting.settings import ExportSettings, Format
from slimdet.messages import listed
from slimdet.report.settings import ProfileSettings, ValSettings
from slimdet.runtime.engine import EngineSettings
from slimdet.runtime.prediction import PredictSettings
from slimdet.serving.settings import ServeSettings
from slimdet.training.settings import TrainSettings


def demo(
    *,
    engine: Engine = EngineSettings.engine,
    device: EngineDevice = EngineSettings.device,
    threads: Threads = EngineSettings.threads,
    out: Annotated[Path | None, "folder (default runs/demo)"] = None,
) -> Outcome:
    """The bundled model on the bundled photographs, at points of its ladder.

    Example:
        slimdet demo
    """
    from slimdet.cli.demo import demo

    result = demo(EngineSettings(engine, device, threads), out)
    return Outcome(result, views.demo(result))


def val(
    *,
    model: Model,
    data: Annotated[Existing, "DATA.yaml or folder, whose val: is taken; or a COCO instances JSON"],
    images: Annotated[Existing | None, "folder of the images of a COCO JSON"] = None,
    width: WidthOrAll = ValSettings.width,
    engine: Engine = ValSettings.engine,
    imgsz: Side = ValSettings.imgsz,
    proposals: Proposals = ValSettings.proposals,
    precision: AnyPrecision = ValSettings.precision,
    device: EngineDevice = ValSettings.device,
    threads: Threads = ValSettings.threads,
    workers: Annotated[Natural, "processes that read images"] = ValSettings.workers,
    out: Annotated[Path | None, "folder (default runs/val-N)"] = None,
) -> Outcome:
    """The 12 COCO numbers of every width, with tables and pictures by class.

    Example:
        slimdet val --model bundled --data annotations/instances_val.json --images images --width all
    """
    from slimdet.report.validation import val

    settings = ValSettings(engine, device, threads, imgsz, proposals, precision, width, workers)
    with views.evaluation_bar() as progress:
        result = val(model, data, settings, images=images, out=out, progress=progress)
    return Outcome({"run": result.run, "widths": result.widths}, views.validation(result))


def predict(
    *sources: Annotated[Source, "images, folders or glob patterns"],
    model: Model,
    width: Annotated[Width, "how wide to run"] = PredictSettings.width,
    conf: Annotated[Fraction, "least score of a detection"] = PredictSettings.conf,
    engine: Engine = PredictSettings.engine,
    imgsz: Side = PredictSettings.imgsz,
    proposals: Proposals = PredictSettings.proposals,
    precision: AnyPrecision = PredictSettings.precision,
    device: EngineDevice = PredictSettings.device,
    threads: Threads = PredictSettings.threads,
    memory: AnyMemory = PredictSettings.memory,
    batch: Annotated[Count, "images at a time; those that become one size run together"] = PredictSettings.batch,
    out: Annotated[Path | None, "folder (default runs/predict-N)"] = None,
) -> Outcome:
    """Detect objects in images: drawn pictures and COCO JSON.

    Example:
        slimdet predict photo.jpg holiday/ --model bundled --width 0.5
    """
    from slimdet.runtime.prediction import predict

    how = PredictSettings(engine, device, threads, imgsz, proposals, precision, width, conf, batch, memory=memory)
    found = predict(sources, model, how, out)
    document = {"run": found.run, **found.coco, "broken": found.broken}
    return Outcome(document, views.predictions(found), views.unread(found))


def profile(
    *,
    model: Model,
    engine: Engine = ProfileSettings.engine,
    imgsz: Side = ProfileSettings.imgsz,
    proposals: Proposals = ProfileSettings.proposals,
    precision: AnyPrecision = ProfileSettings.precision,
    device: EngineDevice = ProfileSettings.device,
    threads: Threads = ProfileSettings.threads,
    repeats: Annotated[Count, "timed runs of every width"] = ProfileSettings.repeats,
    memory: AnyMemory = ProfileSettings.memory,
    save: Annotated[bool, "time all engines and numbers of threads, and keep it in the bundle for engine auto"] = False,
) -> Outcome:
    """Latency, memory, disk, parameters and multiply-adds of every width, as far as they are known.

    Example:
        slimdet profile --model bundled --engine onnxruntime
    """
    from slimdet.report.costs import costs

    how = ProfileSettings(engine, device, threads, imgsz, proposals, precision, repeats, memory=memory)
    if save:
        from slimdet.report.engines import save_latencies

        save_latencies(model, repeats)
    found = costs(model, how)
    return Outcome(found, views.costs(found))


def extract(
    *,
    model: Model,
    width: Annotated[Width, "one of the bundle's widths"],
    out: Annotated[Path | None, "folder to write, new or empty (default: runs/extract-N)"] = None,
) -> Outcome:
    """One width as a plain torchvision detector that needs no slimdet.

    Example:
        slimdet extract --model bundled --width 0.5 --out half
    """
    from slimdet.bundle.extraction import extract

    written = extract(model, width, out)
    return Outcome(written, views.extraction(written))


def export(
    *,
    model: Model,
    width: WidthOrAll = ExportSettings.width,
    format: Annotated[Format, "kind of engine file"] = ExportSettings.format,
    imgsz: Side = ExportSettings.imgsz,
    linked: Annotated[bool, "ONNX files that use the bundle's weights file and hold none"] = ExportSettings.linked,
    int8: Annotated[bool, "beside each file one whose layers compute in 8 bits"] = ExportSettings.int8,
    data: Annotated[
        Existing | None, "with --int8, DATA.yaml or folder: calibration on train:, accuracy on val:"
    ] = ExportSettings.data,
    max_ap_drop: Annotated[
        NonNegative | None, "AP of 100 that 8 bits may cost a width (default: 0.5 or 2 %, the less)"
    ] = ExportSettings.max_ap_drop,
    images: Annotated[Count, "training images to calibrate on"] = ExportSettings.images,
    val_images: Annotated[Count, "val images to measure on, at most"] = ExportSettings.val_images,
    seed: Annotated[Natural, "of the choice of images"] = ExportSettings.seed,
    out: Annotated[Path | None, "folder for the files alone (default: the bundle; 'bundled': runs/export-N)"] = None,
) -> Outcome:
    """Widths as engine files, pixels in, detections out, that run without torch.

    Example:
        slimdet export --model bundled --width 0.5 --format onnx --out engines
        slimdet export --model runs/train-1/model --int8 --data data.yaml --format openvino
    """
    fields: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("model", "out")}
    from slimdet.exporting.engine_files import export

    written = export(model, ExportSettings(**fields), out=out)
    return Outcome(written, views.export(written), "; ".join(written.refused.values()))


def convert(
    source: Annotated[
        Convertible, "a YOLO or VOC data set, the original's checkpoint, a bundle made of one, or a trained detector"
    ],
    /,
    *,
    to: Annotated[
        Literal["coco", "bundle", "checkpoint", "slimmable"] | None, "what it becomes (default: what it can)"
    ] = None,
    out: Annotated[Path | None, "folder, new or empty; a checkpoint's file (default: runs/convert-N)"] = None,
    config: Annotated[Existing | None, "a checkpoint's config file (default: the original's that fits)"] = None,
    data: Annotated[Existing | None, "DATA.yaml or folder of the detector's classes: slimmable is trained"] = None,
    detector: Annotated[str | None, "name in torchvision of what a file of weights is, fasterrcnn_resnet50_fpn"] = None,
    widths: Annotated[Widths, "widths of a slimmable detector, 1.0 among them"] = TrainSettings.widths,
    epochs: Annotated[Positive | None, "passes over the training images (default: by their number)"] = None,
    batch: Annotated[Count | None, "images in a step of the training (default: 8, on a GPU more)"] = None,
    device: Device = TrainSettings.device,
    seed: Annotated[Natural, "of everything drawn at random"] = TrainSettings.seed,
    threads: Threads = TrainSettings.threads,
    given: Set[str] = frozenset(),
) -> Outcome:
    """A data set as COCO (images stay where they are), the original's checkpoint as a bundle, a detector as slimmable.

    A detector is a bundle of one width, what 'slimdet extract' wrote, a state dict of one of torchvision's, or its name
    there: COCO weights are downloaded then. Its channels are sorted, and it teaches all widths in a short training.

    Example:
        slimdet convert my_yolo_dataset --to coco --out my_dataset
        slimdet convert mask_rcnn_r50_fpn_1x.pth --out my_model
        slimdet convert my.pth --detector fasterrcnn_resnet50_fpn --to slimmable --data data.yaml
    """
    fields: dict[str, Any] = {k: v for k, v in locals().items() if k in given and k not in ("to", "out", "config")}
    from slimdet.cli.conversion import convert, slimmable

    if to == "slimmable":
        trained = slimmable(source, out, config, fields)
        return Outcome(trained, views.training(trained))
    if fields:
        raise ConfigError(f"{listed([f'--{name}' for name in fields])} belongs to --to slimmable; add it")
    written = convert(Path(source), to, out, config)
    return Outcome(written.files, views.conversion(written))


def check(
    *,
    data: Annotated[Existing, "DATA.yaml or folder, or with --images a COCO instances JSON"],
    images: Annotated[Existing | None, "folder of the images of a COCO JSON"] = None,
) -> Outcome:
    """What a data set holds, and every fault, by file, id and reason; all images are decoded.

    The exit status is 2 if something would stop a training. What is put right when the data set is read (a box over the
    edge of its image, say) is told, too, and is none.

    Example:
        slimdet check --data my_dataset/data.yaml
    """
    from slimdet.data.annotations import MENDED
    from slimdet.data.check import check
    from slimdet.data.config import DataConfig, OpenedData, open_data
    from slimdet.data.formats.annotated import Split
    from slimdet.data.formats.coco_folders import unlisted
    from slimdet.data.summary import summary

    opened = OpenedData(DataConfig(None, Split(images, data))) if images else open_data(data)
    splits = {name: split for name, split in vars(opened.config).items() if split is not None}
    faults = [*opened.faults, *(one for split in splits.values() for one in check(split.annotations, split.images))]
    unread = {fault.file for fault in faults if fault.kind == "unreadable annotations"}
    held = {name: summary(one.annotations) for name, one in splits.items() if str(one.annotations) not in unread}
    notes = [*opened.notes, *(unlisted(data, splits.values()) if opened.why.startswith("COCO") and not unread else [])]
    told = [opened.why] if opened.why else []
    document = {"is": opened.why, "notes": notes, "splits": held}
    document["faults"] = [vars(one) | {"id": str(one.id), "harmless": one.kind in MENDED} for one in faults]
    grave = sum(one.kind not in MENDED for one in faults)
    return Outcome(document, views.check(held, faults, [*told, *notes]), f"{grave} faults in {data}" if grave else "")


def serve(
    *,
    model: Model,
    host: Annotated[str, "address to listen on; 0.0.0.0 is all of this machine's"] = ServeSettings.host,
    port: Annotated[Natural, "0 takes a free one"] = ServeSettings.port,
    slo_ms: Annotated[Positive, "milliseconds to an answer, where a request names none"] = ServeSettings.slo_ms,
    workers: Annotated[Count, "processes that detect"] = ServeSettings.workers,
    conf: Annotated[Fraction, "least score of a detection, where a request names none"] = ServeSettings.conf,
    engine: Engine = ServeSettings.engine,
    device: EngineDevice = ServeSettings.device,
    threads: Annotated[Count | None, "threads of one run"] = ServeSettings.threads,
    memory: AnyMemory = ServeSettings.memory,
    token_file: Annotated[
        Existing | None, "its first line is the token that requests must carry (default: SLIMDET_TOKEN, else none)"
    ] = ServeSettings.token_file,
) -> Outcome:
    """Answer over HTTP, with a page to try it; narrows under load, so that answers are in time.

    Example:
        slimdet serve --model bundled --slo-ms 200
    """
    fields: dict[str, Any] = {name: value for name, value in locals().items() if name != "model"}
    from slimdet.serving.server import serve

    served = serve(model, ServeSettings(**fields))
    return Outcome(served, f"{served.requests} requests were answered")


def doctor() -> Outcome:
    """Versions, engines, devices; what is missing and how to get it.

    Example:
        slimdet doctor
    """
    from slimdet.cli.doctor import doctor, text

    findings = doctor()
    return Outcome(findings, text(findings))


_ALL = (
    *(demo, train, calibrate, val, tune, search, benchmark, predict, job, video, profile),
    *(extract, export, convert, check, serve, doctor),
)
VERBS = {verb.__name__: verb for verb in _ALL}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `slimdet VERB ...` and return its exit code."""
    # Read when torch is imported. Threads that wait by spinning, the default, make a step five times slower on a busy
    # machine; those that sleep at once, a third slower on a quiet one. So libgomp's spin for some microseconds
    # (benchmarks/training/waiting.json).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    return run(VERBS, argv)
