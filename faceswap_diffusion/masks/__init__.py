"""What to repaint: regions from landmarks and face parsers, masks from users, and things in front of the face."""
