"""Questions asked of finished runs, each from run folders to a table or a figure."""
