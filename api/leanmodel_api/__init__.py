"""The contract: the LeanModel resource, the Jobs' plans and reports, and what the router is started with."""
