"""Figures: functions from arrays and tables to a matplotlib `Figure`."""
