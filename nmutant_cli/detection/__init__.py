"""The sequential test and its exact properties; verdicts on many samples (section 5 of the paper)."""
