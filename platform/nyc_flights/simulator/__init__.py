"""Plays four source systems of a small company from the real flights of 2013: `world` is the way in, `truth` tells
what was spoiled. Nothing of the platform's own loading or cleaning belongs here, and nothing here imports it.
"""
