"""Data: frames are cut into samples (`frames`, `sample`, `targets`; open people are rendered as samples by
`dpose.synthetic`), stored (`shards`), then jittered and cut again (`streams`) into batches (`loader`).
"""
