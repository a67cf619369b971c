"""What a comparison is made of: counts, classes, ratios, noise, examples, words, and more than two systems."""
