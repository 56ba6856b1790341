"""What the project is measured and built with; not installed."""
