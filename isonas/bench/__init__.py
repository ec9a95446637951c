"""Measurements of isonas itself."""
