"""Whole trainings: phases of the same dictionary under different priors."""
