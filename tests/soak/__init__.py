"""Long runs that show what a short test cannot: `python -m tests.soak.NAME --help` says what each does."""
