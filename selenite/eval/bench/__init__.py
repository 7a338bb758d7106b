"""Load on an OpenAI endpoint, ours or a peer's, and what it answers: ``selenite bench serve``.

workload.py   how long each prompt and answer is, what prompts share, when they arrive (trace.py)
prompts.py    prompts that have these lengths for the server's tokenizer
load.py       sends them and notes when what came back
record.py     one request's times and tokens, by definition
summary.py    all of them: throughput, percentiles, goodput, errors
report.py     table and file
"""
