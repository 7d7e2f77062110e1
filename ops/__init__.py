"""The operator's side: the `nexus` command against a deployment. Never in a Lambda.

Everything here serves any application's stack: the catalogue and the queues are those that the stack names. What is
about the social network's own data is in `ops.social`, and nowhere else. Building, the local cloud and the demo are in
`dev`, which may import from here and not the other way round.
"""
