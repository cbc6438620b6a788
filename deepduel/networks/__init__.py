"""Networks: options -> backbone, head and saved model."""
