"""How long `nmutant --help` and a config error take, beside Python itself and importing TensorFlow.

    python scripts/bench_startup.py [RUNS]

Each round starts every command once, so that the ratios hold when the machine's speed drifts.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

NMUTANT = [sys.executable, "-c", "from nmutant_cli.cli import main; main()"]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "nmutant --help": [*NMUTANT, "--help"],
    "nmutant detect --help": [*NMUTANT, "detect", "--help"],
    "a config error": [*NMUTANT, "detect", "--set", "detection.alpha=0"],
    "import tensorflow": [sys.executable, "-c", "import tensorflow"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(runs)]
    print(f"{'':24}{'median s':>10}{'of TensorFlow':>16}   ({runs} rounds)")
    for name in COMMANDS:
        median = statistics.median(one[name] for one in rounds)
        ratio = statistics.median(one[name] / one["import tensorflow"] for one in rounds)
        print(f"{name:24}{median:10.2f}{ratio:16.3f}")


if __name__ == "__main__":
    main()
