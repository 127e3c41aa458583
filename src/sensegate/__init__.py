"""The sensing gateway of a city."""
