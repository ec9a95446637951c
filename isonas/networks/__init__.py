"""Genomes as PyTorch networks."""
