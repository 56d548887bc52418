"""The main job on one machine, through the same programs that run on three.

::

    <dir>/
      data/             the labelled data set, made once
      configs/          the training configurations
      server/           the server's folder
      laptop/           the client's home: its library is laptop/models
      gpu-box/          the worker's folder
      predictions/      what tracking wrote, and pictures of it
      logs/             what server and worker said
      summary.json      every step with its duration and figures
"""
