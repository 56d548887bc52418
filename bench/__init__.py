"""How fast it is, measured side by side in one run; `bench/README.md` has the figures.

::

    __main__.py   everything, then results/<date>.json and a table
    transfer.py   a large file: ours, the bare binding, aiortc; speed, CPU, memory
    control.py    round trip of a small request, idle and while blocks fill the link
    startup.py    from `train` to the first step, and `--help`
    pairs.py      two processes, the pipe between them, what they used
    peer.py       one of the two processes: ours.py, bare.py or portable.py
"""
