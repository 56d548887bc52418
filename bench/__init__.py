"""How fast it is, measured side by side in one run; `bench/README.md` has the figures.

::

    __main__.py       everything, then results/<date>.json and a table
    transfer.py       a large file: ours, the bare binding, aiortc; speed, CPU, memory
    control.py        round trip of a small request, idle and while blocks fill the link
    startup.py        from `train` to the first step, and `--help`
    pairs.py          two processes, the pipe between them, what they used
    peer.py           one of the two processes: ours.py, bare.py or portable.py

    library.py        all about the library:
    registries.py     100 to 100,000 models: ours, plain SQLite, MLflow
    subject.py        one of these in its process: subject_ours.py, _sqlite.py, _mlflow.py
    made.py           the models, the same for each
    programs.py       how long command lines take to start
    imports.py        one large file, by link and by copy
    environments.py   what is compared with, installed; what an installation takes
    kills.py          writers are killed, and what they leave is looked at
"""
