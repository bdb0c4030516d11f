"""Singer taps (hub.meltano.com) as a source: programs that somebody else wrote to read a system, run as processes of
their own. What they print is read here; nothing of their libraries is.
"""
