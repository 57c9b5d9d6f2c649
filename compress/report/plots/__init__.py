"""Interactive figures of results, for the report and for notebooks alike."""
