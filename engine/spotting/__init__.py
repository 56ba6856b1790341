"""Region motions to spans: onset, apex and offset of what is an expression."""
