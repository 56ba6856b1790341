"""The command line and the other programs that use the packages."""
