"""Moving shapes: clips and edits that are drawn, a judge that sees what a clip shows, evaluations.

Synthetic data on which a small generator learns in an hour whether it does as it is told. Nothing
else in the house depends on this room.
"""
