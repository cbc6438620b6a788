"""Options to backbone, head and saved model."""
