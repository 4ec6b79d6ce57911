"""What to repaint: region masks from landmarks and from a small face parser, and masks that users bring."""
