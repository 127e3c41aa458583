"""Properties, units, coordinates, quality codes and flags: the vocabulary of a reading, with its tables."""
