"""Text for pre-training said in other words, with its facts checked (Kimi K2, section 2.2).

    sources ──► documents ──► chunks ──► back end ──► fidelity ──► joined ──► shards ──► data
    (data/)     intake.py     chunks.py  rules/,      fidelity.py  document.py shards.py  (jsonl)
                                         by_model.py  judge.py

``pipeline.py`` is the entry, ``docs/rephrasing.md`` the guide.
"""
