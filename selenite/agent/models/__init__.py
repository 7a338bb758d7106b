"""Language models behind HTTP, for whatever role asks one: any endpoint that speaks OpenAI's API.

    Model.complete, .json ──► Asker: cache ──► limits ──► transport ──HTTP──► endpoint
          │  ▲                 (ask.py)          ▲            │
          │  └── wrong: say so, ask again        └── pause ◄──┘ fault that may pass
          ▼
        Ledger: one line a call

``model.py`` is the entry, ``docs/models.md`` the guide. What the roles ask for is not here.
"""
