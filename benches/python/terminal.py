"""Runs a program on a terminal of its own, 100 columns wide, so that progress bars do what they do for a person.

What it prints is thrown away, unless it fails.
"""

import fcntl
import os
import pty
import struct
import sys
import termios
import time

pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    os.environ["FULGURITE_BENCH_STARTED"] = str(time.time_ns())
    os.execvp(sys.argv[1], sys.argv[1:])
printed = b""
try:
    while chunk := os.read(terminal, 1 << 16):
        printed = (printed + chunk)[-4000:]
except OSError:
    # The program closed its end.
    pass
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
if code != 0:
    sys.exit(f"{sys.argv[1:]} ended with {code}:\n{printed.decode(errors='replace')}")
