"""Training in several processes: what they send one another, and how their shares make one step."""
