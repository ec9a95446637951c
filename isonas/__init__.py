"""isonas: neural architecture search over isometric convolutional networks."""

__version__ = "0.1.0"
