"""ACEBench in English, single turn: its questions, our comparison and judgement."""
