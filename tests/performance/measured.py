"""Runs a command and prints what the system counted for it, as JSON; imports next to nothing.

Linux counts for a process also what the one it was forked from had in memory before `exec`: so the process
that starts a measured command must be a small one.
"""

import json
import os
import sys
import time


def main() -> None:
    """`measured.py COMMAND ARGUMENT…` → {"exit_code", "cpu_s", "wall_s", "peak_mib"}."""
    started = time.monotonic()
    devices = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=devices)
    _, status, usage = os.wait4(pid, 0)
    wall_s = time.monotonic() - started
    # getrusage(2): bytes on macOS, KiB elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    answer = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": wall_s,
        "peak_mib": usage.ru_maxrss * unit / 1024**2,
    }
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
