"""`slimdet serve`: a detector behind HTTP that narrows under load. Built on the runtime and the controller alone."""
