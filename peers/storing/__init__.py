"""`sparehive store`: a process without torch that keeps content of a run, is drawn for it, mends it, and shows that it has it."""
