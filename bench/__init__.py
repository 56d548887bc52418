"""How fast it is, measured side by side in one run; `bench/README.md` has the figures.

::

    __main__.py       everything, then results/<date>.json and a table
    keeping.py        results/<date>.json

    transfer.py       files moved, by us and by others: speed, CPU, memory, and the goals
    ways.py           its rows: each is one way to move a file or a folder
    goals.py          what is to be reached, and the ratios
    report.py         its tables
    pairs.py          rows of two processes with a pipe between them
    peer.py           one of the two: ours.py, bare.py, portable.py, tls.py, tcp.py
    copying.py        rows of programs: cp, scp, rsync, magic-wormhole
    stores.py         rows of uploads and downloads, with a real S3 server
    store_client.py   one that is a library: ours, boto3, obstore
    processes.py      programs watched from outside: time, CPU and memory of all they start
    kills_transfer.py one side is killed, again and again, and what that costs
    loss.py           lossy, long and relayed lines; how many of 100 transfers end well
    sharing.py        how much of a new version is in the old one already

    control.py        round trip of a small request, idle and while blocks fill the link
    startup.py        from `train` to the first step, and `--help`

    library.py        all about the library:
    registries.py     100 to 100,000 models: ours, plain SQLite, MLflow
    subject.py        one of these in its process: subject_ours.py, _sqlite.py, _mlflow.py
    made.py           the models, the same for each
    programs.py       how long command lines take to start
    imports.py        one large file, by link and by copy
    environments.py   what is compared with, installed; what an installation takes
    kills.py          writers are killed, and what they leave is looked at
"""
