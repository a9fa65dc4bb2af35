"""matcompute: the software of a computation-class data node."""

__version__ = "0.1.0"
