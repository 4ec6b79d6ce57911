"""What a swap is measured by, in training and evaluation: recognisers, LPIPS, Fréchet distance, light, statistics."""
