"""Predictions to figures: metrics, calibration, comparisons; no HTML."""
