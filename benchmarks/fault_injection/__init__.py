"""Fault injection; `benchmarks/faults.py` is the command.

`subjects` lists the valid inputs of `checkpoints`, `runs` and `records`; `documents`, `weights` and `media` mutate
their files; `cases` runs one process per case, and `kills` kills commands.
"""
