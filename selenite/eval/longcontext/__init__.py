"""What sparse reading and smaller caches cost a model on long texts: ``selenite eval longcontext``.

told.py      requests whose tokens are given: what would the model have said, in a mode?
text.py      long text to go on with, and needles to be found in it
methods.py   modes at equal budget, and what each of them scored
layers.py    which layer chooses tokens best: ``selenite eval layers``
report.py    tables, a heat map of needles, a file
"""
