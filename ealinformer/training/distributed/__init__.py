"""Several processes that train one run: who they are, how they meet and agree, which windows each has."""
