"""What the paper printed, what its text claims, and how a run is held against it."""
