"""Tables, plots and pages that show a result."""
