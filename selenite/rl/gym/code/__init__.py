"""Functions to be written, and how code of a model is examined."""
