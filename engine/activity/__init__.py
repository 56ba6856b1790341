"""What a face does besides expressions: speech, blinks, gaze, turns of the head."""
