"""Everything with a file, a thread or a clock in it: sources, writers, drivers."""
