"""mutirão: raw text of a low-resource language in, an energy-accounted language model out."""

__version__ = "0.1.0"
