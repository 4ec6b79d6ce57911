"""Reads and writes videos, by PyAV: frames with their times and colours, and all that goes with them."""
