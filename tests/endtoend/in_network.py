"""Become a command in a network of its own, once the test has put cables into it.

    python in_network.py COMMAND [ARG …]

Says ``{"kind": "network"}``, waits for a line on standard input, then becomes the command.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWNET = 0x40000000

if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.write(1, b'{"kind": "network"}\n')
sys.stdin.readline()
os.execvp(sys.argv[1], sys.argv[1:])
