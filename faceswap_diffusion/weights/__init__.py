"""Where weights come from: third-party files by name and SHA-256, checkpoint folders, the Hub."""
