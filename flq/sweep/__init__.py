"""Many simulations from one file: what is to be played, and who plays it."""
