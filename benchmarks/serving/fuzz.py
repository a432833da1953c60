"""Whatever is sent to `slimdet serve`: schemathesis makes requests of the server's own description, good and bad ones.

    pip install schemathesis
    python benchmarks/serving/fuzz.py [--cases 10000] [--out FILE]

An answer of 500 or above is a failure, but for the deliberate 503, and so is a connection that breaks. Afterwards the
server must still answer a photograph. The record has the number of requests by status.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import date
from importlib.metadata import version
from pathlib import Path
from urllib.request import Request, urlopen

from servers import served

from slimdet.assets import PHOTOGRAPHS

OPERATIONS = 3  # of the description that take something; the others have few cases
CONFIG = """
[checks]
enabled = false
not_a_server_error.enabled = true
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""


def counts(port: int) -> Counter[str]:
    """Requests for detection by status, as the server counted them."""
    found: Counter[str] = Counter()
    with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        for line in reply.read().decode().splitlines():
            if line.startswith("slimdet_requests_total{"):
                labels, value = line.rsplit(" ", 1)
                found[labels.partition('"')[2].partition('"')[0]] += int(float(value))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    with served("bundled") as (_, port), tempfile.TemporaryDirectory() as folder:
        url = f"http://127.0.0.1:{port}"
        (Path(folder) / "schemathesis.toml").write_text(CONFIG)
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--seed", "1"]
        command += ["--max-examples", str(-(-options.cases // OPERATIONS)), "--mode", "all", "--continue-on-failure"]
        command += ["--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--no-color"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        photograph = (PHOTOGRAPHS / "tabby.jpg").read_bytes()
        with urlopen(Request(f"{url}/v1/detect", photograph, {"content-type": "image/jpeg"})) as reply:
            alive = reply.status == 200
        statuses = counts(port)
    print(done.stdout)
    record = {"date": str(date.today()), "schemathesis": version("schemathesis"), "exit_code": done.returncode}
    record |= {"detections_by_status": dict(sorted(statuses.items())), "answers_afterwards": alive}
    record["summary"] = [
        line.strip() for line in done.stdout.splitlines() if "generated" in line or "Test cases" in line
    ]
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
