"""Fault injection: valid inputs (`subjects`), what is done to them (`mutations`), one process per case (`cases`), and
kills (`kills`). `benchmarks/faults.py` is the command.
"""
