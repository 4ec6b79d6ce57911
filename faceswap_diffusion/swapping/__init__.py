"""From photos to a swapped photo: what joins faces, masks, pipeline and compositing."""
