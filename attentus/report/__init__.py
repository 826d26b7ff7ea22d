"""What people look at: one HTML file about a run, comparisons of methods, contact sheets of datasets."""
