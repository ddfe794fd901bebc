"""The prove Job: ask both models over HTTP, judge, calibrate, certify, report."""
