"""The only place that writes pictures, and marks them as made with AI."""
