"""Faces in photos: detection, landmarks, expression, head pose, alignment and selection. NumPy in, dataclasses out."""
