"""Rewards for what no code can check: a critic says which of two attempts is better."""
