"""Identity, CLIP features and landmarks, turned into the context that the UNet attends to."""
