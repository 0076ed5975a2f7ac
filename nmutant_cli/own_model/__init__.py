"""A detector for a user's own model: its images, its calibration, its verdicts."""
