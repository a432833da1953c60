"""What the README shows works as it is written."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(2))
def test_python_examples_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[number], f"README.md example {number + 1}", "exec"), {})
    if number == 0:
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["0.25", "0.5", "0.75", "1.0"]
        assert "cat" in lines[-1]
    else:
        assert (tmp_path / "my-model" / "model.json").is_file()


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == 2


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
