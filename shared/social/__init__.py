"""The social network: its catalogue of tasks, its data, and what its web application calls. Start in `catalogue`.

Belongs here: tables, uploads, unsubscribe links, code shared by the jobs over the data. Does not belong here: the
runtime (`nexus`, which never imports this package), the tasks' own code (functions/), and the operator's side (ops/).
"""
