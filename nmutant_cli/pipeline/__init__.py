"""An experiment: its run folder and its stages, from training to the report."""
