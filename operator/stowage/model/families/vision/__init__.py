"""Vision towers, a file per way to build one."""
