"""Runs a program that ends with the process that asked for it, however that one ends.

Called as `python -I guard.py PARENT PROGRAM ARGUMENT...`; it becomes the program, so that the process id stays.
A helper between fork and exec would be shorter, but is not safe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Asks the kernel for SIGKILL when `parent` ends, then becomes `command`; needs `parent` to be the parent."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The signal is for a death from now on: a parent that was gone before would leave us here for ever.
    if os.getppid() == parent:
        os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
