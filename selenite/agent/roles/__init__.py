"""Roles that a model can take: the programmatic back end of each, and one that asks an endpoint.

    task ─► task author ─► tool author ─► agent author ─► user ◄─► agent ◄─► tool world ─► judge
            words          descriptions   introduction    words    turns     replies       votes

Truth (state, solution, checks) is always code: a model adds language, plans and opinions, and code
accepts each of them or keeps its own. ``play.py`` is the entry, ``docs/models.md`` the guide.
"""
