"""Data: frames and labels -> samples -> shards -> batches (see `labels`, `sample`, `shards`, `loader`)."""
