"""How long `attentus --help` and `import attentus` take beside an interpreter that does nothing.

    python benchmarks/startup.py [RUNS]

Prints the median of each over the runs (10 by default), taken in turn, and its multiple of the bare interpreter's.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import attentus": [sys.executable, "-c", "import attentus"],
    "attentus --help": [sys.executable, "-m", "attentus.cli.main", "--help"],
}


def main(runs: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs + 1):  # the first round warms the disk cache
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - started)
    bare = statistics.median(times["python -c pass"][1:])
    for name, taken in times.items():
        median = statistics.median(taken[1:])
        print(f"{name:<18} {median:6.3f} s   {median / bare:5.1f} x python -c pass")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
