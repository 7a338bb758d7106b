"""Values that are kept for a while. Time is given by the caller, in seconds."""
