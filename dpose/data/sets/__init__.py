"""Data sets: one module per set finds its frames and their labels, which it converts if need be.

A module's text says which files to download and where to put them. It has `SPLITS`; `PROTOCOL`, by which the
set is scored (`dpose.metrics.PROTOCOLS`); and

    scenes(root, out, split, skipped, bodies, progress=False) -> list[FrameSet]

for the files below the folder `root`. Labels that have to be converted are written to `<out>/labels`, and
again only when what they are made from has changed (`common.converted`). `skipped` counts people whom a rule
leaves out and records faults, also those of an earlier conversion. Raised are FileNotFoundError for missing
files and licensed bodies, ValueError for malformed ones, and TooManyFaults.
"""
