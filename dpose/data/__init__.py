"""Data: frames and labels -> samples -> shards -> batches (see `labels`, `sample`, `shards`, `loader`)."""

from dpose.data.labels import Labels
from dpose.data.sample import Sample, make_label, sample_from_frame
from dpose.data.shards import write_manifest, write_shards

__all__ = ["Labels", "Sample", "make_label", "sample_from_frame", "write_manifest", "write_shards"]
