"""The Diffusers pipeline: aligned crops in, aligned crops out."""
