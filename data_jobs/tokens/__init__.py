"""Tokenizers: how they are trained, taken over, judged, and run fast. Read `engines` first."""
