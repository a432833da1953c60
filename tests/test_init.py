"""The public face: what `import slimdet` shows."""

import inspect

import slimdet
from slimdet import errors


def test_the_package_shows_its_public_names_and_nothing_else() -> None:
    kinds = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    verbs = {"train", "val", "calibrate", "export", "tune", "benchmark", "video"}
    assert set(slimdet.__all__) == {"slim", "load", "save", "Runtime", "Result", "Slimmable"} | verbs | kinds
    assert dir(slimdet) == sorted([*slimdet.__all__, "__version__"])


def test_public_names_say_what_they_do() -> None:
    for name in slimdet.__all__:
        assert inspect.getdoc(getattr(slimdet, name)), name
