"""Tools around the method: `dpose doctor`, and the installer of the paper's renderer."""
