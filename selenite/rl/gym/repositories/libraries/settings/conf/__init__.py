"""Settings from text: sections, values of several kinds, and one text over another."""
