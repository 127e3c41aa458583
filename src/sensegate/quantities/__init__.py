"""Properties, units, coordinates, quality codes and flags: the vocabulary of a reading, with its tables.

`sorting` is the radix sort that all stages use for the columns of a batch.
"""
