"""The command line: one file per command or small family; ``output.py`` alone prints.

``main.py`` has the table of commands. A command's module is imported when it is
run or helped with, and imports what does the work only when it works.
"""
