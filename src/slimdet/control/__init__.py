"""What holds a budget: which operating point the next call runs at. Pure: no clock, no thread, no engine."""
