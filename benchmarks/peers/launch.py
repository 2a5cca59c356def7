"""Runs a command to its end and prints what it took, as JSON.

    python -S -E launch.py SECONDS LOG COMMAND...

A process of its own because Linux counts the memory of whoever starts a program as the program's own at first: the
largest memory of a tool would never be less than that of the process that measures it. This one stays small.
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    limit, log, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    start, stopped = time.perf_counter(), False
    process = os.fork()
    if not process:
        _become(command, log)
    while True:
        ended, status, used = os.wait4(process, os.WNOHANG)
        if ended:
            break
        if time.perf_counter() - start > limit and not stopped:
            stopped = True
            os.killpg(process, signal.SIGKILL)
        time.sleep(0.01)
    found = {
        "wall_s": time.perf_counter() - start,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3),  # bytes there, kilobytes elsewhere
        "timed_out": stopped,
        "code": os.waitstatus_to_exitcode(status),
    }
    print(json.dumps(found), flush=True)


def _become(command: list[str], log: str) -> None:
    """Turn into the command, in a group of its own, so that what it starts can be stopped with it."""
    try:
        os.setsid()
        told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(told, 1)
        os.dup2(told, 2)
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error}\n".encode())
    os._exit(127)


if __name__ == "__main__":
    main()
