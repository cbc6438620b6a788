"""A finished run's models to answers."""
