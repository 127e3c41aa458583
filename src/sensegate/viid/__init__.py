"""GA/T 1400 (VIID): the listener for cameras and platforms, catalogues, platforms above and below."""
