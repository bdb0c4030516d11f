"""How hypothesis runs here: without a deadline, since the first call of an expression may be slow on a busy machine."""

from hypothesis import settings

settings.register_profile("cleaning", deadline=None, max_examples=60)
settings.load_profile("cleaning")
