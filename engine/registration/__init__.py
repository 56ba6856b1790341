"""Face to registered crop and the motion of its regions, with the motion of the head taken out."""
