"""IFEval: prompts whose instructions code can check, read against constant replies."""
