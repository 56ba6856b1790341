"""The annotated video: regions, motion, labels and time drawn over the pictures, the sound kept."""
