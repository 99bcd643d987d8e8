"""Data sets: one module per set turns its files into the label table."""
