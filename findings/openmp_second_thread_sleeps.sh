#!/usr/bin/env bash
# torch 2.13.0 (CPU wheel for Linux, libgomp): once two threads of a process have computed, the workers of both sleep
# after every operation, and a model of small operations takes about twice as long as in a process of one such thread.
#
# Behaviour: each thread that runs a parallel operation gets OpenMP workers of its own, which stay until it ends. While
# all threads together are no more than the cores, idle workers wait actively for the next operation. One more pool, and
# every operation puts its worker to sleep and wakes it again: loading weights in the main thread and computing in
# another one, as most servers do, is enough. On an idle machine with two cores, a 13 M parameter LLM took 2.0 times as
# long in a second thread as in the main thread, and 0.9 times if that thread also loaded the weights.
# Output seen, on two cores:
#   main thread: 0 sleeps for each operation
#   second thread: 2 sleeps for each operation
#   only one thread computes: 0 sleeps for each operation
# What to do: compute in one thread from the first operation on, loading included. Call `torch.get_num_threads()` in it
# and then `torch.set_num_threads(1)` in the main thread: later threads then compute without workers.
#
# Exits 0 while this is so, 1 if it has changed, 2 on a machine with one core.
set -euo pipefail
[ "$(nproc)" -ge 2 ] || exit 2
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/run.py" <<'PYTHON'
import os
import sys
import threading

import torch

pixels = torch.randn(2**17)


def sleeps():
    total = 0
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/status") as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("voluntary"))
    return total


def work(name):
    for _ in range(200):
        torch.nn.functional.silu(pixels)
    before = sleeps()
    for _ in range(2000):
        torch.nn.functional.silu(pixels)
    print(f"{name}: {round((sleeps() - before) / 2000)} sleeps for each operation")


def in_another_thread(name):
    thread = threading.Thread(target=work, args=(name,))
    thread.start()
    thread.join()


if sys.argv[1] == "both":
    work("main thread")
    in_another_thread("second thread")
else:
    in_another_thread("only one thread computes")
PYTHON
"${PYTHON:-python3}" -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy 2>/dev/null
export OMP_NUM_THREADS=$(nproc)
unset OMP_WAIT_POLICY GOMP_SPINCOUNT
{ "$place/env/bin/python" "$place/run.py" both; "$place/env/bin/python" "$place/run.py" one; } | tee "$place/seen"
sed -E 's/second thread: ([1-9][0-9]*)/second thread: some/' "$place/seen" > "$place/compared"
printf '%s: %s sleeps for each operation\n' "main thread" 0 "second thread" some "only one thread computes" 0 \
  | diff - "$place/compared" > /dev/null || exit 1
