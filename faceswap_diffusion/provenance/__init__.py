"""The one place where pictures are written, each with the statement that AI made it."""
