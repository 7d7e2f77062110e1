"""AWS as the runtime speaks to it: the clients, DynamoDB's language, and requests to one table.

Belongs here: what knows AWS and nothing of tasks. Does not belong here: run records, messages, and any table's schema.
"""
