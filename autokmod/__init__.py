"""autokmod: out-of-tree kernel modules that come back after every kernel update."""

__version__ = "0.1.0"
