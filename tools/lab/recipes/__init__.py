"""Tools around training: trials of recipes, ablations, the fit of the judge, drawings of simulated maps."""
