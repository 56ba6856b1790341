"""Annotation files of human coders (ELAN, Praat, BORIS, tables), read to compare with what was found."""
