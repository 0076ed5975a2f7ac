"""From label changes and verdicts to tables, figures and one page."""
