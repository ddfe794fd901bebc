"""What all tests without an engine share: property tests have no deadline.

On a machine that does other things too, a first call of 200 ms says nothing about the code; pytest's timeout stays.
"""

from hypothesis import settings

settings.register_profile(
    "unhurried", settings.get_profile(settings.get_current_profile_name()), deadline=None
)
settings.load_profile("unhurried")
