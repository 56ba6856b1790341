"""Frame to faces: detection, landmarks, and the identity of each face from frame to frame."""
