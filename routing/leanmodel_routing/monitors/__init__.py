"""Monitors: what production watches, one file each. Plain Python, since the router itself runs them.

Each has a level, the chance that it ever gives a false alarm, however long it runs and however often it is looked
at; a state that is small plain JSON; and `fold`, which takes the merged tally of one period. To add one, add a file
and a test, and enter it in `watch`.
"""

from __future__ import annotations

from leanmodel_routing.monitors.label_free import LabelFreeMonitor
from leanmodel_routing.monitors.score_drift import ScoreDriftMonitor
from leanmodel_routing.monitors.tally import Counts, Tally
from leanmodel_routing.monitors.watch import Watch

__all__ = ["Counts", "LabelFreeMonitor", "ScoreDriftMonitor", "Tally", "Watch"]
