"""What the package's face parser tells apart."""

LABELS = ("background", "skin", "hair", "brows", "eyes", "nose", "lips", "mouth", "other")
"""Labels, by index. "other" is neck, ears, hats, clothes, hands and things in front of the face."""
