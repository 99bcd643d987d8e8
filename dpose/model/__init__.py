"""The D-PoSE network: encoder, decoders, soft attention, regressor, and its checkpoints."""
