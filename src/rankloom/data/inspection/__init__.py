"""A look at a log before training: its columns, what looks wrong, and a run file to begin with.

`inspection.inspect_log` is the whole; `shape` guesses the layout, `scan` reads once, and each other
file is one kind of check.
"""
