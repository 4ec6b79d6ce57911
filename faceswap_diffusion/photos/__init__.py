"""From any photo to RGB pixels, and what of its metadata is kept."""
