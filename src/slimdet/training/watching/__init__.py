"""What watches a training: the callbacks' protocol, logs, tables, pictures, validation on the way."""
