"""The Berkeley Function Calling Leaderboard, single turn: its questions, its checker, its score."""
