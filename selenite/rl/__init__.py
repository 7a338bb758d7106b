"""Reinforcement learning: a model acts in environments, is scored, and learns from it."""
