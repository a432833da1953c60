"""How good and how fast operating points are on the user's data and machine, in rows that say how they came to be."""
