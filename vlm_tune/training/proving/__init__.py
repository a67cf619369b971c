"""Evidence around training: what is trained, that every adapter is alive, and how far each region moved."""
