"""Reads photos of any format into RGB pixels, and keeps their metadata."""
