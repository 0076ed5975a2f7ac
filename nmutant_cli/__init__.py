"""nmutant: detecting adversarial samples by mutation testing (arXiv 1805.05010), checked."""

__version__ = "0.1.0"
