"""Tools beside the science: `dpose doctor` and the installer of the paper's renderer."""
