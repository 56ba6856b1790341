"""Speed of optical flow and of the networks, beside what libraries offer."""
