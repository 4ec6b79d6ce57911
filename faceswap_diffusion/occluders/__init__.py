"""Drawn things in front of faces, with what they hide: to train on, and to measure with."""
