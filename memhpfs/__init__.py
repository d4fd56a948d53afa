"""memhpfs: a Linux memory-hotplug machine that you can mount."""

__all__ = ["__version__"]

__version__ = "0.1.0"
