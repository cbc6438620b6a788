"""Figures to HTML pages, plots and galleries."""
