"""Data sets: one module per set finds its frames and their labels, which it converts if need be.

A module's docstring lists the files to download and their places. It has `SPLITS`; `PROTOCOL`, the evaluation
protocol of the set (`dpose.metrics.PROTOCOLS`); and

    scenes(root, out, split, skipped, bodies, progress=False) -> list[FrameSet]

for the files below the folder `root`. Converted labels are cached (in `<out>/labels`) until their sources
change (`common.converted`). `skipped` counts people whom a rule leaves out and records faults, also those of
an earlier conversion. Raises FileNotFoundError for missing files and licensed bodies, ValueError for
malformed ones, and TooManyFaults.
"""
