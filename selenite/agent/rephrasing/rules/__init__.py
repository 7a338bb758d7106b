"""The back end that needs no model: forms, sentences and words are changed by rules.

    passage ──► blocks ──► mask ──► sentences: clauses, wording ──► forms ──► unmask
                           masks.py  clauses.py wording.py          forms.py

It restructures and rewords English and adds nothing; it does not understand what it says. A
model's rephrasing differs far more from its source. ``rewriter.py`` is the entry.
"""
