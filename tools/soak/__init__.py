"""Long runs that show what a short test cannot: `python -m tools.soak.NAME --help` says what each does."""
