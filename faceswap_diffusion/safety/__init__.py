"""What must not be swapped: explicit pictures, and faces that look like a minor's."""
