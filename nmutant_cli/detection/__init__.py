"""The sequential test, its exact properties, verdicts on many samples (the paper's section 5)."""
