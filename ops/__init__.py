"""The operator's side: the `nexus` command against a deployment. It never runs in a Lambda function.

Everything here works for any application's stack: the stack names the catalogue and the queues. Only `ops.social`
knows the social network's own data. Building, the local cloud and the demo are in `dev`, which may import from here;
nothing here imports from `dev`.
"""
