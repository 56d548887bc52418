"""The process that owns one job: parent of its trainer, writer of its log.

``python -m sleap_rtc.worker.runner JOBDIR`` is started by the worker's daemon in
a session of its own and doesn't depend on it: the daemon may die and come back.

=============  ==================================================================
module         what it does
=============  ==================================================================
client         the daemon's side: launch, attach, follow, command
recovery       what the daemon does about a runner that is gone
plan           ``plan.json``: everything the daemon decided for the runner
messages       the words on the Unix socket between the two
link           the runner's end of that socket
logfile        ``events.jsonl`` on disk: append, cut a torn tail, read from *n*
supervisor     the job: its stages one after another, commands, its end
conductor      one process of an engine under the job's commands
training       one stage of training, from plan to record and files in the library
tracking       one video after the other, and the predictions
attempts       what a stage leaves on disk: plans, outcomes, the engine's folders
relay          engine events to job events, at most so many a second
records        model records at each turn (pure)
=============  ==================================================================
"""
