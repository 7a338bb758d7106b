"""Engines in processes of their own, for rollouts.

actor, bus ─► engine.RemoteEngine ─► channel ─► host.Host ─► EngineThread
              begins it anew          a pipe to a child, or Ray
"""
