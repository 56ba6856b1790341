"""Work on a Ray cluster: the process that talks to Ray, the connection to it, and items given to workers on the nodes.

archive, folds -> dispatch -> connection -> ray_process
"""
