"""How long `import janusflow` and `janusflow --help` take (bars: 0.3 s and 1 s), median of several fresh processes.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 7
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import janusflow": ["-c", "import janusflow"],
    "janusflow --help": ["-m", "janusflow.cli", "--help"],
    "janusflow generate --help": ["-m", "janusflow.cli", "generate", "--help"],
}


def main() -> None:
    """Prints seconds per command."""
    for name, command in COMMANDS.items():
        seconds = []
        for _ in range(RUNS):
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
        print(f"{name:28} {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")


if __name__ == "__main__":
    main()
