//! Runs that log to experiment trackers, and these read by the trackers' own software: see `tests`.
