"""Images to train on: every source yields uint8 pixels of shape (N, 3, S, S) and labels."""
