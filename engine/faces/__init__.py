"""Frame to faces: detection, landmarks, and who is who from frame to frame."""
